"""The commands about releases: list, show, compare, go back and name; `app` makes them top-level ones.

Every command takes a release as an id (r000003), a pin (prod) or ``current``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidlake.cli.output import (
    DEFAULT_WAREHOUSE,
    JsonOption,
    WarehouseOption,
    open_warehouse,
    print_json,
    print_line,
    print_rows,
    terminal_width,
    usage,
)
from sidlake.errors import NotFoundError

if TYPE_CHECKING:
    from sidlake.warehouse.diff import ReleaseDiff
    from sidlake.warehouse.releases import Release
    from sidlake.warehouse.tables import Warehouse

__all__ = ["COMMANDS", "diff", "lineage", "pin", "pins", "rejected", "releases", "resume", "rollback", "show", "unpin"]

ReleaseArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="A release (r000003), a pin (prod) or current.")]
_SHOWN_ROWS = 200
ReasonOption = Annotated[str | None, typer.Option(help="Why, in your words; kept with the change.")]


def releases(warehouse: WarehouseOption = DEFAULT_WAREHOUSE, as_json: JsonOption = False) -> None:
    """List the releases, newest first, with the names that point at them.

    Example: sidlake releases
    """
    from sidlake.warehouse.keep.pins import pins as pins_of
    from sidlake.warehouse.keep.vacuumed import vacuumed
    from sidlake.warehouse.releases import history

    lake = open_warehouse(warehouse)
    names: dict[str, list[str]] = {}
    for one in pins_of(lake):
        names.setdefault(str(one.release_id), []).append(one.name)
    gone, columns = vacuumed(lake), ["release_id", "parent", "generation", "created_at", "status", "content_hash", "reason"]
    columns += ["published_by", "override"]
    rows: list[dict[str, Any]] = [
        {name: getattr(release, name) for name in columns}
        | {"pins": names.get(release.release_id, []), "readable": release.release_id not in gone}
        for release in reversed(history(lake))
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["content_hash"] = str(row["content_hash"])[:12]
        row["created_at"] = f"{row['created_at']:%Y-%m-%d %H:%M:%S}"
        row["status"] = row["status"] if row["readable"] else "vacuumed"
        row["pins"] = " ".join(row["pins"])
    print_rows("releases", ["release_id", "pins", *columns[1:]], rows)
    if not rows:
        print_line("no release yet; make one with: sidlake run retrain")


def show(
    what: Annotated[str, typer.Argument(metavar="ITEM|SID|RELEASE", help="An item_id, a SID, a release, a pin or current.")],
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    item: Annotated[bool, typer.Option("--item", help="Take it for an item_id, though a release or pin is called so.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a release with all it records, or an item, its SID, and the items that share each prefix of it.

    Example: sidlake show 85123A
    """
    from sidlake.reports.summary import item_card
    from sidlake.warehouse.releases import find

    lake = open_warehouse(warehouse)
    if not item:
        with suppress(NotFoundError):
            _show_release(lake, find(lake, what), as_json)
            return
    card = item_card(lake, what)
    if as_json:
        print_json(card)
        return
    moved = f"  (moved from {card['raw_sid']})" if card["moved"] else ""
    print_line(f"{card['item_id']}  {card['title']}\n  SID {card['sid']}{moved}")
    for prefix in card["prefixes"]:
        print_line(f"  {prefix['prefix']} shared with {prefix['items']} other items: {'; '.join(prefix['examples']) or '-'}")


def diff(
    before: ReleaseArgument,
    after: Annotated[str, typer.Argument(metavar="[RELEASE]", help="What to compare it with.")] = "current",
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    show_all: Annotated[bool, typer.Option("--all", help="Every metric, table and setting that differs, not one screen.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two releases on one screen: items, SIDs, metrics, inputs, settings.

    Example: sidlake diff r000001 r000002
    """
    from sidlake.reports.brief import diff_lines
    from sidlake.warehouse.diff import diff as diff_of

    found = diff_of(open_warehouse(warehouse), before, after)
    if as_json:
        print_json(asdict(found))
    elif show_all:
        _print_diff(found)
    else:
        for line in diff_lines(found, terminal_width()):
            print_line(line)


def rollback(
    release: ReleaseArgument,
    reason: Annotated[str, typer.Option(help="Why, in your words; kept with the release.")],
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Make an older release current again: a new release that names its versions, after re-reading and re-verifying them.

    From then on runs publish nothing, so that the next scheduled one does not bring back what was wrong: lift that with
    `sidlake resume`.

    Example: sidlake rollback r000003 --reason "r000004 lost the new pictures"
    """
    from sidlake.warehouse.outlets.lookup_file import refresh_lookup
    from sidlake.warehouse.releases import current, get
    from sidlake.warehouse.releases import rollback as roll_back

    lake = open_warehouse(warehouse)
    if not reason.strip():
        usage("--reason is empty; say why, others will ask")
    latest, target = current(lake), get(lake, release)
    if target == latest:
        usage(f"{target.release_id} is the current release, there is nothing to roll back; list others with: sidlake releases")
    made = roll_back(lake, target.release_id, reason.strip())
    _refresh_catalog(lake)
    if missing := refresh_lookup(lake):
        typer.echo(missing, err=True)
    if as_json:
        print_json(asdict(made))
        return
    old = latest.release_id if latest else "none"
    print_line(
        f"{made.release_id} is current: the content of {target.release_id} (was {old}); see sidlake diff {old} {made.release_id}"
    )
    print_line('runs publish nothing until: sidlake resume --reason "…"')


def resume(
    reason: Annotated[str, typer.Option(help="Why runs may publish again, in your words; it is kept.")],
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Let runs publish again after a rollback.

    Example: sidlake resume --reason "the new pictures are there"
    """
    from sidlake.warehouse.holds import lift
    from sidlake.warehouse.releases import current

    lake = open_warehouse(warehouse)
    if not reason.strip():
        usage("--reason is empty; say why, others will ask")
    hold = lift(lake, current(lake), reason=reason)
    _refresh_catalog(lake)
    if as_json:
        print_json(asdict(hold))
        return
    print_line(f"runs publish again; they were {hold.spelled()}")


def pin(
    name: Annotated[str, typer.Argument(help="The name, such as prod.")],
    release: Annotated[str, typer.Argument(metavar="[RELEASE]", help="A release (r000003), a pin or current.")] = "current",
    reason: ReasonOption = None,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Point a name at a release, wherever it pointed before; a pinned release is never vacuumed.

    Example: sidlake pin prod r000003
    """
    from sidlake.warehouse.keep.pins import checked_name, resolve
    from sidlake.warehouse.keep.pins import pin as set_pin
    from sidlake.warehouse.releases import get

    try:
        checked_name(name)
    except ValueError as error:
        usage(str(error))
    lake = open_warehouse(warehouse)
    before = resolve(lake, name)
    made = set_pin(lake, name, get(lake, release).release_id, reason=reason)
    _refresh_catalog(lake)
    if as_json:
        print_json(asdict(made) | {"before": before})
        return
    print_line(f"{made.name} points at {made.release_id}" + (f", before at {before}" if before else ""))


def pins(warehouse: WarehouseOption = DEFAULT_WAREHOUSE, as_json: JsonOption = False) -> None:
    """List the names in force and the releases they point at.

    Example: sidlake pins
    """
    from sidlake.warehouse.keep.pins import pins as pins_of

    rows = [asdict(one) for one in pins_of(open_warehouse(warehouse))]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["set_at"] = f"{row['set_at']:%Y-%m-%d %H:%M:%S}"
    print_rows("pins", ["name", "release_id", "set_at", "set_by", "reason"], rows)
    if not rows:
        print_line("no pins; set one with: sidlake pin prod r000001")


def unpin(
    name: Annotated[str, typer.Argument(help="The name to take away.")],
    reason: ReasonOption = None,
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Take a name away; the release it points at stays, until a vacuum finds no other reason to keep it.

    Example: sidlake unpin prod
    """
    from sidlake.warehouse.keep.pins import unpin as take_away

    lake = open_warehouse(warehouse)
    gone = take_away(lake, name, reason=reason)
    _refresh_catalog(lake)
    if as_json:
        print_json(asdict(gone))
        return
    print_line(f"{gone.name} no longer points at {gone.release_id}")


def lineage(
    what: Annotated[str, typer.Argument(metavar="ITEM|RELEASE|CHECKPOINT", help="An item_id, a release or pin, or a checkpoint.")],
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """Show where an item's SID, a release or a trained model comes from, and what was made of it.

    Example: sidlake lineage 85123A
    """
    from sidlake.warehouse.lineage import lineage as chain_of

    chain = chain_of(open_warehouse(warehouse), what)
    if as_json:
        print_json(chain)
        return
    _print_chain(chain, "")


def rejected(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run, such as 20261120T231500-482913; a failed one says its name.")],
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    as_json: JsonOption = False,
) -> None:
    """List the source rows that a run refused, also where it failed for refusing too many.

    Example: sidlake rejected 20261120T231500-482913
    """
    from sidlake.pipelines.ingest.rejected import rejected_of

    rows = rejected_of(open_warehouse(warehouse), run).to_pylist()
    if as_json:
        print_json(rows)
        return
    print_rows("rejected rows", ["source", "row", "target", "rule", "value"], rows[:_SHOWN_ROWS])
    if len(rows) > _SHOWN_ROWS:
        print_line(f"{len(rows) - _SHOWN_ROWS:,} more: --json has all")


COMMANDS = (releases, show, diff, lineage, rejected, rollback, resume, pin, pins, unpin)


def _refresh_catalog(lake: Warehouse) -> None:
    """Let `catalog.duckdb` show what was just committed, for those who read it with DuckDB alone."""
    from sidlake.warehouse.catalog import refresh_catalog

    if missing := refresh_catalog(lake):
        typer.echo(missing, err=True)


def _print_chain(chain: Mapping[str, object], indent: str) -> None:
    """Print one line per entry; what holds more goes below its name, further in."""
    for name, value in chain.items():
        if value is None or value == [] or value == {}:
            continue
        label = f"{indent}{name.replace('_', ' '):<14} "
        if isinstance(value, Mapping):
            print_line(label.rstrip())
            _print_chain(value, indent + "  ")
        elif isinstance(value, list) and isinstance(value[0], Mapping):
            print_line(label.rstrip())
            for entry in value:
                print_line(f"{indent}  " + "  ".join(str(part) for part in entry.values() if part is not None))
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else f"{value:.4g}" if isinstance(value, float) else value
            print_line(f"{label}{shown}")


def _show_release(lake: Warehouse, release: Release, as_json: bool) -> None:
    from sidlake.warehouse.keep.vacuumed import vacuumed

    gone = vacuumed(lake).get(release.release_id)
    if as_json:
        print_json(asdict(release) | {"readable": gone is None})
        return
    print_line(
        f"{release.release_id}  {release.status}, generation {release.generation}, {release.created_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    if gone:
        print_line(f"  vacuumed {gone.vacuumed_at:%Y-%m-%d %H:%M} UTC by {gone.vacuumed_by}: its files are gone")
    about = {
        "reason": release.reason,
        "published by": release.published_by,
        "override": release.override,
        "parent": release.parent,
        "content hash": release.content_hash,
        "codebook hash": release.codebook_hash,
        "code version": release.code_version,
        "recipe": release.config.get("name"),
        "tables": _spelled(release.tables),
        "inputs": _spelled({name: str(about.get("sha256", about))[:12] for name, about in release.inputs.items()}),
        "encoders": _spelled(release.encoders),
        "metrics": _spelled(release.metrics),
    }
    for name, value in about.items():
        if value:
            print_line(f"  {name:<14}{value}")
    print_line(f"  everything: sidlake show {release.release_id} --json; where it comes from: sidlake lineage {release.release_id}")


def _spelled(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items())


def _print_diff(found: ReleaseDiff) -> None:
    print_line(f"{found.before} (generation {found.generation_before}) to {found.after} (generation {found.generation_after})")
    if found.same_content:
        print_line("  the same content, by its hash")
    items, sids = found.items, found.sids
    print_line(
        f"  items  {items.before:,} to {items.after:,}: {items.added:,} added, {items.retired:,} retired, "
        f"{items.changed:,} with changed content"
    )
    for kind, ids in items.examples.items():
        print_line(f"         {kind}: {', '.join(ids)}{', …' if getattr(items, kind) > len(ids) else ''}")
    print_line(f"  SIDs   {sids.kept:,} kept, {sids.moved:,} moved, {sids.added:,} added, {sids.retired:,} retired")
    if not sids.same_generation:
        both = sids.kept + sids.moved
        shares = ", ".join(f"{count / both:.1%}" for count in sids.kept_prefixes) if both else "no items in both"
        print_line(f"         kept to the depth of 1, 2, ... codes: {shares}")
    for one in sids.examples:
        print_line(f"         {one['item_id']}: {one['before']} became {one['after']}")
    print_rows("tables", ["table", "before", "after"], [{"table": t, "before": b, "after": a} for t, (b, a) in found.rows.items()])
    print_rows("metrics", list(asdict(found.metrics[0])) if found.metrics else [], [asdict(one) for one in found.metrics])
    changed = [{"setting": key, "before": b, "after": a} for key, (b, a) in found.settings.items()]
    print_rows("made of", ["setting", "before", "after"], changed)
