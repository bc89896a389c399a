"""The JSON Schema of recipes, by which editors complete and check TOML; from the same dataclasses that read recipes.

Draft 7, which editors of TOML understand. It knows names, types, choices and what must be given; what only the dataclasses' own
checks know (two keys that exclude each other) is left to them.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sidlake.pipelines.recipe import Recipe, TokenizerConfig, plain
from sidlake.pipelines.settings.reference import OPTIONS, Section, alternatives, sections, sentences, written_fields, written_hints

__all__ = ["recipe_schema"]

Schema = dict[str, Any]
_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}


def recipe_schema() -> Schema:
    """Return the schema as JSON values."""
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "sidlake recipe", **_table(Recipe)}


def _table(kind: type, *, chosen: bool = False) -> Schema:
    """Return the schema of a dataclass; one that is `chosen` by its `kind` among others must say it."""
    hints, declared = written_hints(kind), written_fields(kind)
    properties = {f.name: _key(kind, f, hints[f.name]) for f in declared}
    if kind is TokenizerConfig:
        properties["options"] |= _options()
    needed = [f.name for f in declared if f.default is MISSING and f.default_factory is MISSING] + ["kind"] * chosen
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def _key(kind: type, declared: Field[Any], hint: Any) -> Schema:  # noqa: ANN401  a type annotation
    described = _any_of(_value(hint)) | {"description": sentences(kind).get(declared.name, "")}
    default = declared.default if declared.default_factory is MISSING else declared.default_factory()
    has_default = default is not MISSING and default is not None and not is_dataclass(default)
    return described | ({"default": plain(default)} if has_default else {})


def _value(hint: Any) -> list[Schema]:  # noqa: ANN401
    choices = alternatives(hint)
    return [schema for place, one in enumerate(choices) for schema in _one(one, chosen=place > 0)]


def _one(kind: Any, *, chosen: bool) -> list[Schema]:  # noqa: ANN401
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return [{}]
    if origin is Literal:
        return [{"enum": list(arguments)}]
    if origin is tuple:
        return [{"type": "array", "items": _any_of(_value(arguments[0]))}]
    if origin is dict:
        return [{"type": "object", "additionalProperties": _any_of(_value(arguments[1]))}]
    if is_dataclass(kind) and isinstance(kind, type):
        shorthand = getattr(kind, "shorthand", None)
        return [_table(kind, chosen=chosen), *(_value(get_type_hints(kind)[shorthand]) if shorthand else [])]
    return [{"type": _SCALARS[kind]}]


def _any_of(schemas: list[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _options() -> Schema:
    """Return the schema of `tokenizer.options`: the settings of all kinds; each says of which it is."""
    of_kinds = [section for section in sections() if section.paths == [OPTIONS]]
    names = dict.fromkeys(f.name for section in of_kinds for f in section.fields)
    return {"properties": {name: _option(name, of_kinds) for name in names}, "additionalProperties": False}


def _option(name: str, of_kinds: list[Section]) -> Schema:
    having = [section for section in of_kinds if name in {f.name for f in section.fields}]
    values = [schema for section in having for schema in _value(written_hints(section.kind)[name])]
    says = "\n".join(f"{section.of}: {sentences(section.kind).get(name, '')}" for section in having)
    return _any_of([one for place, one in enumerate(values) if one not in values[:place]]) | {"description": says}
