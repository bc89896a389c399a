"""`sidlake explain`: what the keys of a recipe mean."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sidlake.cli.output import JsonOption, print_json, print_line

if TYPE_CHECKING:
    from sidlake.pipelines.settings.reference import Key

__all__ = ["explain"]


def explain(
    key: Annotated[str | None, typer.Argument(help="A key such as tokenizer.widths, or widths; all tables if none.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a key of a recipe means, what it may be, its default, and whether only a retrain may change it.

    Example: sidlake explain items.title
    """
    from sidlake.pipelines.settings.reference import explained, keys_of_recipes
    from sidlake.pipelines.settings.schema import recipe_schema

    if schema:
        print_json(recipe_schema())
    elif as_json:
        print_json([asdict(one) for one in (keys_of_recipes() if key is None else explained(key))])
    else:
        for line in _tables() if key is None else _of(key):
            print_line(line)


def _tables() -> list[str]:
    from sidlake.pipelines.settings.reference import sections

    shown = [(", ".join(path or "(top level)" for path in one.paths), one) for one in sections()]
    return [f"{places}{f', of {one.of}' if one.of else ''}: {', '.join(f.name for f in one.fields)}" for places, one in shown]


def _of(asked: str) -> list[str]:
    from sidlake.pipelines.settings.reference import explained

    return [line for one in explained(asked) for line in _lines(one)]


def _lines(key: Key) -> list[str]:
    facts = [key.type, key.default if key.default == "must be given" else f"default: {key.default}"]
    facts += [f"of {key.of}"] * bool(key.of) + ["only a retrain may change it"] * key.only_by_retrain
    return [f"{key.path}  ({'; '.join(facts)})", f"    {key.says.replace('``', '`')}"]
