"""Dataclasses from plain mappings: types checked, unknown keys refused, the path of the offending key in the message.

A dataclass whose class variable ``shorthand`` names a field may be written as that field's text alone.

Only what recipes need: dataclasses, tuples, string-keyed dicts, literals, optionals and scalars. A library such as pydantic would
do more, at the price of a second kind of class for every configuration that the lower folders already declare as dataclasses.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sidlake.errors import RecipeError

__all__ = ["parse_dataclass"]

T = TypeVar("T")


def parse_dataclass(kind: type[T], values: Mapping[str, object], *, path: str = "") -> T:
    """Return an instance of `kind` from `values`.

    Raises:
        RecipeError: unknown key, missing key or wrong type, with the key's dotted path and what is allowed.
    """
    hints = get_type_hints(kind)
    declared = fields(kind)  # type: ignore[arg-type]
    allowed = [f.name for f in declared]
    unknown = [key for key in values if key not in allowed]
    if unknown:
        msg = f"unknown key {_join(path, unknown[0])}; allowed here: {', '.join(name for name in allowed if name != 'folder')}"
        raise RecipeError(msg)
    missing = [f.name for f in declared if f.default is MISSING and f.default_factory is MISSING and f.name not in values]
    if missing:
        msg = f"missing key {_join(path, missing[0])}: add it to the recipe"
        raise RecipeError(msg)
    parsed = {name: _parse(hints[name], value, _join(path, name)) for name, value in values.items()}
    try:
        return kind(**parsed)
    except RecipeError as error:
        if str(error).startswith(path):
            raise
        raise RecipeError(f"{path}: {error}") from error


def _parse(kind: Any, value: object, path: str) -> Any:  # noqa: ANN401 - a type annotation has no narrower type
    if kind is Any:
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _parse(_alternative([a for a in arguments if a is not type(None)], value, path), value, path)
    if origin is Literal:
        return _checked(value in arguments, value, path, f"one of {list(arguments)}")
    if is_dataclass(kind) and isinstance(kind, type):
        shorthand = getattr(kind, "shorthand", None)
        if shorthand and isinstance(value, str):
            value = {shorthand: value}
        return parse_dataclass(kind, _checked(isinstance(value, Mapping), value, path, "a table"), path=path)
    if origin is tuple:
        entries = _checked(isinstance(value, list), value, path, "a list")
        return tuple(_parse(arguments[0], entry, f"{path}[{i}]") for i, entry in enumerate(entries))
    if origin is dict:
        entries = _checked(isinstance(value, Mapping), value, path, "a table")
        return {key: _parse(arguments[1], entry, _join(path, key)) for key, entry in entries.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    return _checked(fits, value, path, kind.__name__)


def _alternative(kinds: list[Any], value: object, path: str) -> Any:  # noqa: ANN401
    """Return the only one of `kinds`, or of several dataclasses the one whose field `kind` may be what `value` says.

    Where `value` says no kind it is the first.
    """
    if len(kinds) == 1 or not isinstance(value, Mapping) or "kind" not in value:
        return kinds[0]
    spelled = {name: kind for kind in kinds for name in get_args(get_type_hints(kind)["kind"])}
    _checked(value["kind"] in spelled, value["kind"], _join(path, "kind"), f"one of {list(spelled)}")
    return spelled[value["kind"]]


def _checked(fits: bool, value: Any, path: str, expected: str) -> Any:  # noqa: ANN401
    if not fits:
        msg = f"{path} must be {expected}, got {value!r}"
        raise RecipeError(msg)
    return value


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
