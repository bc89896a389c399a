"""Every key of a recipe, read from the dataclasses that recipes become: type, default, sentence, and who may change it.

Sentences are those of the classes' docstrings, under ``Attributes``: nothing is said twice, and a key without a sentence fails a
test. Names that a recipe chooses are written NAME: ``sources.NAME.path``.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sidlake.errors import NotFoundError
from sidlake.pipelines.recipe import Method, Recipe, TokenizerConfig, plain
from sidlake.pipelines.settings.frozen import only_by_retrain
from sidlake.tokenizers.generations.wrapper import Wrapper
from sidlake.tokenizers.registry import KINDS, tokenizer_class

__all__ = [
    "IN_WORDS",
    "OPTIONS",
    "Key",
    "Section",
    "alternatives",
    "explained",
    "keys_of_recipes",
    "sections",
    "sentences",
    "written_fields",
    "written_hints",
]

OPTIONS = "tokenizer.options"
"""Whose keys are those of the kind of tokenizer."""

IN_WORDS = (_NEEDED, _NONE, _OF_KEYS) = ("must be given", "none", "that of its keys")
"""What stands for a default where there is no value to write."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One key.

    Attributes:
        path: where it stands, ``tokenizer.widths``.
        of: when it is there: the kinds that have it, or that it is of a method's file; empty for always.
        type: in words.
        default: as TOML writes it, or in words.
        says: its sentence.
        only_by_retrain: whether a refresh is refused that changes it.
    """

    path: str
    of: str
    type: str
    default: str
    says: str
    only_by_retrain: bool


@dataclass(kw_only=True, slots=True)
class Section:
    """A table of a recipe: where it may stand, when, and what it is for."""

    kind: type
    of: str
    says: str
    paths: list[str] = field(default_factory=list)

    def keys_at(self, path: str) -> list[Key]:
        """Return the keys of the table at `path`, one of its places."""
        hints, says = written_hints(self.kind), sentences(self.kind)
        return [_key(f, hints[f.name], says.get(f.name, ""), path, self.of) for f in self.fields]

    @property
    def fields(self) -> list[Field[Any]]:
        """The fields of the class that may be written there."""
        return _own_options(self.kind) if self.paths[0] == OPTIONS else written_fields(self.kind)


def _key(declared: Field[Any], hint: Any, says: str, at: str, of: str) -> Key:  # noqa: ANN401  a type annotation
    path = _join(at, declared.name)
    return Key(path=path, of=of, type=_in_words(hint), default=_default(declared), says=says, only_by_retrain=only_by_retrain(path))


@cache
def sections() -> tuple[Section, ...]:
    """Return the tables of a recipe in the order of its dataclasses, each class once, and at the end what a method's file adds."""
    found: dict[tuple[type, str], Section] = {}
    _collect(Recipe, "", "", found)
    _collect(Method, "", "a method's file", found)
    return tuple(found.values())


@cache
def keys_of_recipes() -> tuple[Key, ...]:
    """Return every key at every place where it may stand."""
    return tuple(key for section in sections() for path in section.paths for key in section.keys_at(path))


def _collect(kind: type, path: str, of: str, found: dict[tuple[type, str], Section]) -> None:
    section = found.setdefault((kind, of), Section(kind=kind, of=of, says=_about(kind)))
    section.paths.append(path)
    hints = written_hints(kind)
    for declared in written_fields(kind):
        for inner, below, when in _tables(hints[declared.name], _join(path, declared.name)):
            _collect(inner, below, when or of, found)
    if kind is TokenizerConfig:
        _collect_options(found)


def _collect_options(found: dict[tuple[type, str], Section]) -> None:
    by_class: dict[type, list[str]] = {}
    for kind in sorted(KINDS):
        tokenizer = tokenizer_class(kind)
        if not issubclass(tokenizer, Wrapper) and _own_options(tokenizer.config_type):
            by_class.setdefault(tokenizer.config_type, []).append(kind)
    for config, kinds in by_class.items():
        of = f"tokenizer.kind {' or '.join(kinds)}"
        found[config, of] = Section(kind=config, of=of, says=_about(config), paths=[OPTIONS])


def _own_options(config: type) -> list[Field[Any]]:
    """Return the fields of a tokenizer's config that a recipe sets in `tokenizer.options`, not in `tokenizer` itself."""
    common = {"widths", "seed", "max_fit_rows", "device"}
    return [f for f in fields(config) if f.name not in common]


def written_hints(kind: type) -> dict[str, Any]:
    """Return the types of a class's fields as a recipe writes them: `method` is the path of a file."""
    hints = get_type_hints(kind)
    return hints | {"method": str | None} if kind is Recipe else hints


def written_fields(kind: type) -> list[Field[Any]]:
    """Return the fields of a class that a recipe may set."""
    return [f for f in fields(kind) if not (kind is Recipe and f.name == "folder")]


def alternatives(hint: Any) -> list[Any]:  # noqa: ANN401
    """Return the types that a key may have, without None: TOML has no such value."""
    if get_origin(hint) in (Union, types.UnionType):
        return [one for one in get_args(hint) if one is not type(None)]
    return [hint]


def _tables(hint: Any, path: str) -> Iterator[tuple[type, str, str]]:  # noqa: ANN401
    """Yield the dataclasses that a key holds, with where they stand and, of several, the kinds that choose each."""
    choices = alternatives(hint)
    for one in choices:
        origin, arguments = get_origin(one), get_args(one)
        if origin is dict:
            yield from _tables(arguments[1], f"{path}.NAME")
        elif origin is tuple:
            yield from _tables(arguments[0], f"{path}[]")
        elif is_dataclass(one) and isinstance(one, type):
            kinds = get_args(get_type_hints(one)["kind"]) if len(choices) > 1 else ()
            yield one, path, f"{path}.kind {' or '.join(kinds)}" if kinds else ""


_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "value"}


def _in_words(hint: Any) -> str:  # noqa: ANN401
    return " or ".join(dict.fromkeys(_one_in_words(one) for one in alternatives(hint)))


def _one_in_words(kind: Any) -> str:  # noqa: ANN401
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(json.dumps(value) for value in arguments)
    if origin is tuple:
        return f"list of: {_in_words(arguments[0])}"
    if origin is dict:
        return f"table by name of: {_in_words(arguments[1])}"
    if is_dataclass(kind):
        shorthand = getattr(kind, "shorthand", None)
        return f"table, or its {shorthand} alone" if shorthand else "table"
    return _WORDS[kind]


def _default(declared: Field[Any]) -> str:
    if declared.default is MISSING and declared.default_factory is MISSING:
        return _NEEDED
    value = declared.default if declared.default_factory is MISSING else declared.default_factory()
    if value is None:
        return _NONE
    return _OF_KEYS if is_dataclass(value) else json.dumps(plain(value))


def _about(kind: type) -> str:
    return " ".join(re.split(r"\n(?:Attributes:\n|Raises )", inspect.cleandoc(kind.__doc__ or ""))[0].split())


@cache
def sentences(kind: type) -> dict[str, str]:
    """Return the sentence of each field that the docstrings of a class and of those it derives from have under ``Attributes``."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        _, _, listed = inspect.cleandoc(one.__dict__.get("__doc__") or "").partition("\nAttributes:\n")
        entries = re.findall(r"^    (\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
        found |= {name: _sentence(text) for names, text in entries for name in names.split(", ")}
    return found


def _sentence(text: str) -> str:
    words = " ".join(text.split())
    return words[0].upper() + words[1:]


def explained(asked: str) -> list[Key]:
    """Return the keys at the place that was asked for, ``items.title`` or ``sources.sales.path``, and those of a table there.

    A name alone, ``widths``, finds all keys of that name. Raises `NotFoundError` with the nearest names where there is none.
    """
    keys = keys_of_recipes()
    found = [key for key in keys if _place(key.path).fullmatch(asked) or _above(key.path).fullmatch(asked)]
    found = found or [key for key in keys if key.path.split(".")[-1] == asked or key.path.endswith(f".{asked}")]
    if found:
        return found
    names = dict.fromkeys(name for key in keys for name in (key.path, key.path.split(".")[-1]))
    near = get_close_matches(asked, names, n=5, cutoff=0.5)
    msg = f"a recipe has no key {asked!r}; {'near are ' + ', '.join(near) if near else 'sidlake explain lists its tables'}"
    raise NotFoundError(msg, key=asked)


@cache
def _place(path: str) -> re.Pattern[str]:
    """Return what finds `path` where names are chosen and entries of lists numbered or not."""
    parts = [r"[^.]+" if part == "NAME" else re.escape(part).replace(r"\[\]", r"(?:\[\d*\])?") for part in path.split(".")]
    return re.compile(r"\.".join(parts))


@cache
def _above(path: str) -> re.Pattern[str]:
    """Return what finds the table that `path` stands in; nothing finds the top level."""
    table = path.rpartition(".")[0]
    return _place(table) if table else re.compile("(?!)")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
