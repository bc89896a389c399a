"""The command that brings in semantic IDs made elsewhere, checks them where asked, and may make them a generation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sidlake.cli.output import DEFAULT_WAREHOUSE, JsonOption, MemoryOption, WarehouseOption, print_json, print_line, usage

if TYPE_CHECKING:
    from sidlake.pipelines.recipe import Recipe
    from sidlake.quality.assignment import Assignment

__all__ = ["import_sids"]

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def import_sids(
    file: Annotated[Path, typer.Argument(help="A file of semantic IDs that others published.")],
    file_format: Annotated[str, typer.Option("--format", "-f", help="index_json, grid, openonerec, npy or parquet.")],
    name: Annotated[str, typer.Option("--name", "-n", help="What to call the assignment.")],
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Parquet file; assignments/NAME.parquet if none.")] = None,
    source: Annotated[str, typer.Option(help="Where it comes from; the file's name if empty.")] = "",
    levels: Annotated[int | None, typer.Option(min=1, help="Keep the first levels only.")] = None,
    width: Annotated[list[int] | None, typer.Option(min=1, help="Codes of a level; one for all levels, or one each.")] = None,
    ids: Annotated[Path | None, typer.Option(help="Item of each row of grid and npy, one per line.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Refuse collapsed SIDs, what the recipe's gates refuse, and items that are not there.")
    ] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Make them a generation of --recipe's catalogue, checked and released like any other.")
    ] = False,
    recipe: Annotated[Path | None, typer.Option("--recipe", "-r", help="Recipe whose gates and spelling of ids hold.")] = None,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring in semantic IDs made elsewhere, to be measured like our own; only --publish publishes them.

    Example: sidlake import Beauty.index.json --format index_json --name letter --width 256
    """
    from sidlake.pipelines.recipe import load_recipe
    from sidlake.quality.imported import FORMATS, describe_assignment, read_assignment, require_sound, write_assignment
    from sidlake.warehouse.places.location import locate
    from sidlake.warehouse.places.storage import disk_errors

    if file_format not in FORMATS:
        usage(f"unknown format {file_format!r}; the formats are {', '.join(FORMATS)}")
    if not _PLAIN_NAME.fullmatch(name):
        usage(f"{name!r} cannot name a file: a name is letters, digits, '.', '_' and '-', and starts with a letter or digit")
    if publish and recipe is None:
        usage("--publish needs the catalogue: name its recipe with --recipe")
    rules = load_recipe(recipe) if recipe else None
    uppercase = rules is not None and rules.items.uppercase_ids
    found = read_assignment(
        file, file_format, name=name, source=source, widths=width, num_levels=levels, ids_path=ids, uppercase_ids=uppercase
    )
    without_sid = None
    if check or publish:
        require_sound(found, rules.gates if rules else ())
    if check:
        without_sid = _items_without_sid(warehouse, found)
    path = output or locate(warehouse).folder / "assignments" / f"{name}.parquet"
    with disk_errors(path):
        write_assignment(found, path)
    about = describe_assignment(found) | {"path": str(path)} | ({"items_without_sid": without_sid} if check else {})
    if publish and rules is not None:
        about |= _publish(warehouse, rules, found, memory)
    if as_json:
        print_json(about)
        return
    _tell_of_import(name, about, f"  {_said_of_ids(without_sid)}" if check else None)


def _tell_of_import(name: str, about: dict[str, Any], said_of_ids: str | None) -> None:
    sizes = "x".join(str(size) for size in about["widths"])
    print_line(f"{name}: {about['items']:,} items, {about['different_sids']:,} different SIDs of {sizes}, in {about['path']}")
    if said_of_ids is not None:
        print_line(said_of_ids)
    if "release" in about:
        print_line(f"  published as generation {about['generation']} in release {about['release']}")
    for note in about["stripped"]:
        print_line(f"  left out {note}")
    if about["ends_in_deduplication"]:
        print_line(f"  the last level only numbers the items of one SID; --levels {len(about['widths']) - 1} leaves it out")


def _publish(warehouse: Path, recipe: Recipe, given: Assignment, memory: int | None) -> dict[str, str]:
    """Run a retrain whose codes are the given ones, and return its generation and release."""
    from sidlake.pipelines.progress import Progress
    from sidlake.pipelines.run import RunContext, new_run_id
    from sidlake.pipelines.steps import run_job
    from sidlake.warehouse.tables import Warehouse

    ctx = RunContext.open(
        Warehouse.create_or_open(warehouse),
        recipe,
        run_id=new_run_id(),
        job="retrain",
        progress=Progress(Console(stderr=True, soft_wrap=True)),
        reason=f"SIDs of {given.name}",
        given=given,
        memory=memory,
    )
    details = {report.step: report.details for report in run_job(ctx)}
    return {"generation": ctx.generation, "release": str(details["release"]["release"])}


def _items_without_sid(warehouse: Path, found: Assignment) -> int | None:
    """Return how many items of the current release `found` has no SID for; None where nothing has been published."""
    from sidlake.quality.imported import require_known_ids
    from sidlake.warehouse.releases import current
    from sidlake.warehouse.tables import Warehouse

    release = current(Warehouse(warehouse)) if Warehouse.is_at(warehouse) else None
    if release is None:
        return None
    items = Warehouse(warehouse).read("items", version=release.tables["items"], columns=["item_id"])
    return require_known_ids(found, items.column("item_id"))


def _said_of_ids(without_sid: int | None) -> str:
    if without_sid is None:
        return "its items were compared with none: the warehouse has no release"
    return f"all its items are in the catalogue, {without_sid:,} of which have no SID here"
