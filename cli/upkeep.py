"""The commands that keep a warehouse small: free what nobody needs, and write what lies in many small files anew."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sidlake.cli.output import (
    DEFAULT_RECIPE,
    DEFAULT_WAREHOUSE,
    JsonOption,
    MemoryOption,
    RecipeOption,
    WarehouseOption,
    open_warehouse,
    print_json,
    print_line,
    print_rows,
)

if TYPE_CHECKING:
    from sidlake.warehouse.keep.vacuum import Vacuum

__all__ = ["COMMANDS", "maintain", "vacuum"]


def vacuum(
    keep: Annotated[int | None, typer.Option(min=1, help="Keep the last N releases.")] = None,
    older_than: Annotated[float | None, typer.Option(min=0, metavar="DAYS", help="Keep releases younger than DAYS.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be freed.")] = False,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Free the files that no live release needs; without options the last 10 releases and those of 7 days are kept.

    Always kept: the current release, pinned ones, those a checkpoint was trained on, those being read, and in an object store every
    file younger than a day, which another machine may be about to publish. Try --dry-run first.

    Example: sidlake vacuum --keep 30 --dry-run
    """
    from sidlake.warehouse.keep.retention import Retention
    from sidlake.warehouse.keep.vacuum import vacuum as free

    lake = open_warehouse(warehouse)
    retention = Retention() if keep is None and older_than is None else Retention(keep=keep, days=older_than)
    plan = free(lake, retention, dry_run=True)
    if not dry_run and not as_json:
        _print_plan(plan)
    done = plan if dry_run else free(lake, retention)
    if as_json:
        print_json(asdict(done))
        return
    if dry_run:
        _print_plan(plan)
    print_line(f"{'would free' if dry_run else 'freed'} {sum(done.files.values()):,} files, {_size(sum(done.bytes.values()))}")


def maintain(
    recipe: RecipeOption = DEFAULT_RECIPE,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write tables of many small files anew, as a release with the same content, then vacuum as by default; once a week is enough.

    Example: sidlake maintain --recipe recipes/online_retail.toml
    """
    from sidlake.pipelines.maintain import maintain as keep_up
    from sidlake.pipelines.recipe import load_recipe
    from sidlake.pipelines.run import RunContext, new_run_id

    lake = open_warehouse(warehouse)
    run_id = new_run_id()
    done = keep_up(RunContext.open(lake, load_recipe(recipe), run_id=run_id, job="refresh", reason="maintenance", memory=memory))
    if as_json:
        print_json(asdict(done))
        return
    rows = [{"table": name, "files before": before, "after": after} for name, (before, after) in done.compacted.items()]
    print_rows("written anew", ["table", "files before", "after"], rows)
    print_line(f"release {done.release.details['release']}" + ("" if done.compacted else ": nothing to write anew"))
    print_line(f"freed {sum(done.freed.files.values()):,} files, {_size(sum(done.freed.bytes.values()))}")


def _print_plan(plan: Vacuum) -> None:
    print_rows("kept", ["release", "why"], [{"release": name, "why": why} for name, why in plan.kept.items()])
    print_line(f"become unreadable: {', '.join(plan.unreadable) or 'none'}")
    rows = [{"of": group, "files": count, "size": _size(plan.bytes[group])} for group, count in sorted(plan.files.items())]
    print_rows("files to free", ["of", "files", "size"], rows)


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:,.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"


COMMANDS = (vacuum, maintain)
