"""The command that proposes a recipe from files: it asks nothing and overwrites nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sidlake.cli.output import JsonOption, print_json, print_line, usage

__all__ = ["COMMANDS"]


def init(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Files, folders or databases of rows; those of this folder if none.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Recipe to write.")] = Path("recipe.toml"),
    force: Annotated[bool, typer.Option("--force", help="Write over a recipe that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at files and propose a commented recipe: identifiers, texts, times, split, encoders, widths.

    Example: sidlake init items.csv events.csv
    """
    from sidlake.pipelines.starting.profiles import look_at, paths_of
    from sidlake.pipelines.starting.recipe_text import open_questions, recipe_text
    from sidlake.pipelines.starting.roles import roles_of
    from sidlake.warehouse.places.storage import disk_errors

    if output.exists() and not force:
        usage(f"{output} is there and is not overwritten; say --force, or name another with --output")
    roles = roles_of([found for path in paths_of(files or ()) for found in look_at(path)])
    text = recipe_text(roles, output.parent)
    with disk_errors(output):
        output.write_text(text, encoding="utf-8")
    questions, events = open_questions(roles), roles.events
    if as_json:
        found = {"items": roles.items.file.place, "events": events.file.place if events else None}
        print_json({"recipe": str(output), **found, "undecided": questions, "doubts": list(roles.doubts.values())})
        return
    print_line(f"{output}: items from {roles.items.file.place}, {f'events from {events.file.place}' if events else 'no events'}")
    for line in (*roles.doubts.values(), *(f"to be decided in the recipe: {question}" for question in questions)):
        print_line(f"  {line}")
    option = "" if output == Path("recipe.toml") else f" --recipe {output}"
    print_line(f"read it, then: sidlake validate {output}; sidlake run retrain{option}")


COMMANDS = (init,)
