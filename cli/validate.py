"""The command that tries a recipe on its sources: exit code 1 where an ingest would fail; no warehouse is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidlake.cli.output import JsonOption, print_error, print_json, print_line, print_rows

if TYPE_CHECKING:
    from sidlake.pipelines.starting.dry_run import DryRun

__all__ = ["validate"]


def validate(recipe: Annotated[Path, typer.Argument(help="TOML file of the recipe.")], as_json: JsonOption = False) -> None:
    """Try a recipe on its sources without a warehouse: rows kept and refused, first items, and what a run will cost.

    Example: sidlake validate recipe.toml
    """
    from sidlake.pipelines.recipe import load_recipe
    from sidlake.pipelines.starting.dry_run import dry_run

    found = dry_run(load_recipe(recipe))
    if as_json:
        print_json(asdict(found))
    else:
        _print(found)
    if found.failures:
        raise typer.Exit(1)


def _print(found: DryRun) -> None:
    for source, columns in found.columns.items():
        print_line(f"source {source}: " + ", ".join(f"{name} ({kind})" for name, kind in columns.items()))
    print_rows("rows", ["target", "read", "refused", "made"], [{"target": one} | dict(rows) for one, rows in found.rows.items()])
    print_rows("refused", ["target", "rule", "rows", "examples"], [dict(row) for row in found.rejected])
    print_rows("first items", ["item_id", "text", "category", "price", "first_seen", "picture"], [dict(row) for row in found.items])
    for failure in found.failures:
        print_error(f"an ingest would fail: {failure}")
    if not found.failures:
        print_line(_said(found.cost))


def _said(cost: Mapping[str, int | None]) -> str:
    size = cost["text_vector_bytes"]
    vectors = "vectors of a model that is not on this machine" if size is None else f"{size:,} bytes of vectors"
    return (
        f"a run will embed {cost['texts']:,} texts ({vectors}) and {cost['pictures']:,} pictures, fuse to at most "
        f"{cost['fused_vector_bytes']:,} bytes, and read {cost['events']:,} events"
    )
