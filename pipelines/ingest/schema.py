"""How a source's columns may change from release to release, held against those that the base release was made of.

A release records every column of its sources with its type. A column that the recipe reads keeps its type, or the run is refused:
the same values under another type become other items. A column that nobody reads is ignored, whatever it becomes; one that is new
is ignored too, is added by naming it in the recipe (``text``, ``price``, ...), and is refused where the source says
``new_columns = "refuse"``, which then fixes the types of all columns. CSV and JSON lines state no types, so that nothing there can
change but the names. Not done here: columns that are missing (`source_rows`), and values that cannot be read (`columns`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidlake.errors import ContractError, RecipeError
from sidlake.pipelines.ingest.source_rows import columns_of
from sidlake.pipelines.recipe import Recipe

__all__ = ["check_columns", "columns_read"]

Columns = dict[str, str]
"""Type of each column of a source."""


def check_columns(
    recipe: Recipe, files: Mapping[str, Mapping[str, Path]], inputs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Columns]:
    """Return the columns of each source: those that the base release's `inputs` record, and those of `files` (per source, by name).

    Raises:
        ContractError: a column that matters has another type than before, or is new where the source refuses new columns.
        SourceError: a file is missing or damaged.
        RecipeError: `types` names a column that nothing reads, so that a misspelt name would change nothing in silence.
    """
    for source, settings in recipe.sources.items():
        unread = sorted(settings.types.keys() - columns_read(recipe, source))
        if unread:
            msg = (
                f"source {source}: types names the column {unread[0]!r}, which the recipe does not read; it reads "
                f"{sorted(columns_read(recipe, source))}: correct the name, or leave it out"
            )
            raise RecipeError(msg)
    known = {source: dict(inputs.get(source, {}).get("columns", {})) for source in recipe.sources}
    for source, named in files.items():
        for path in named.values():
            known[source] |= _checked(recipe, source, path, known[source])
    return known


def columns_read(recipe: Recipe, source: str) -> set[str]:
    """Return the columns of `source` that decide what the recipe makes."""
    names = {rule.column for rule in recipe.sources[source].rules}
    items, events = recipe.items, recipe.interactions
    if items.source == source:
        described = (items.title, items.category, items.price, items.image, items.first_seen)
        optional = (items.item_id, items.order_by, *items.text)
        names |= {column.column for column in described if column} | {name for name in optional if name is not None}
    if events and events.source == source:
        names |= {name for name in (events.user_id, events.item_id, events.ts, events.weight) if name is not None}
    return names


def _checked(recipe: Recipe, source: str, path: Path, known: Columns) -> Columns:
    settings = recipe.sources[source]
    read = columns_read(recipe, source)
    found = columns_of(path, settings, read)
    strict = settings.new_columns == "refuse"
    matter = found.keys() if strict else {name for name in found if any(name == one or one.startswith(f"{name}.") for one in read)}
    changed = sorted(
        name for name in matter & known.keys() if "text" not in (found[name], known[name]) and found[name] != known[name]
    )
    if changed:
        name = changed[0]
        msg = (
            f"source {source}: column {name!r} of {path} holds {found[name]}, earlier releases were made of {known[name]}; "
            "write it with the old type, or under a new name that the recipe then names"
        )
        raise ContractError(msg, source=source, column=name, before=known[name], after=found[name], path=str(path))
    new = sorted(found.keys() - known.keys())
    if strict and known and new:
        msg = (
            f"source {source}: column {new[0]!r} of {path} is new ({found[new[0]]}), and new_columns is 'refuse'; "
            "leave it out, or run once with new_columns = 'ignore' to get it known"
        )
        raise ContractError(msg, source=source, column=new[0], new=new, path=str(path))
    return found
