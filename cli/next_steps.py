"""What `sidlake` says without a command: what lies in this folder, and which command comes next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sidlake.cli.output import default_recipe
from sidlake.warehouse.places.location import default_warehouse

__all__ = ["next_steps"]

_ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")


def next_steps(folder: Path) -> Iterator[str]:
    """Yield lines for a person in `folder`: its release, its recipe or its files of rows, and what to run next."""
    from sidlake.warehouse.releases import current
    from sidlake.warehouse.tables import Warehouse

    place = default_warehouse()
    release = current(Warehouse(place)) if Warehouse.is_at(place) else None
    recipe = default_recipe()
    if release is not None:
        yield f"{place}: release {release.release_id} of {release.created_at:%Y-%m-%d %H:%M} UTC, generation {release.generation}"
        yield "  sidlake status                 what it holds"
        yield "  sidlake report                 whether it is good, as a page"
        yield "  sidlake run refresh            bring in what is new"
    elif recipe.is_file():
        yield f"{recipe}: a recipe, and no release yet"
        yield f"  sidlake validate {recipe}      try it on its sources, in seconds"
        yield "  sidlake run retrain            make the first release"
    else:
        files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
        yield (
            f"files of rows here: {', '.join(files[:5])}{', …' if len(files) > 5 else ''}"
            if files
            else "no recipe and no files here"
        )
        yield f"  sidlake init {' '.join(files[:2]) or 'FILES…'}    propose a recipe from files of items and events"
    yield "sidlake --help lists all commands; sidlake explain says what a recipe's keys mean"
