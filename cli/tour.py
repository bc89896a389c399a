"""A short, readable look at a fresh warehouse: what the demo prints when it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console

from sidlake.reports.summary import item_card, recommended, status_of
from sidlake.reports.text import visible
from sidlake.warehouse.releases import get
from sidlake.warehouse.tables import Warehouse

__all__ = ["print_tour"]

_NUM_ITEMS = 5
_NUM_USERS = 3


def print_tour(warehouse: Warehouse, console: Console) -> None:
    """Print row counts, rejected rows, the verdict, some items and users, and what to type next."""
    state = status_of(warehouse)

    def say(line: str) -> None:
        console.print(visible(line), highlight=False, markup=False, soft_wrap=True)

    say(f"\nRelease {state['release']}, generation {state['generation']}: quality {state['verdict']}")
    say("\nTables      " + ", ".join(f"{t['table']} {t['rows']:,}" for t in state["tables"]))
    for target in ("items", "interactions"):
        rules = [f"{r['rule']} {r['rows']:,}" for r in state["rejected"] if r["target"] == target]
        say(f"Rejected    for {target}: {', '.join(rules) or 'none'}")
    say("Quality     " + ", ".join(_quality(state)))
    say(f"\n{_NUM_ITEMS} items, and what shares their prefix")
    for item_id in _popular(warehouse):
        _print_item(say, item_card(warehouse, item_id))
    users = recommended(warehouse, num_users=_NUM_USERS)
    if users:
        say(f"\n{_NUM_USERS} users")
    for user in users:
        say(f"  {user['user_id']} bought {'; '.join(user['bought'])}")
        say(f"    recommended {'; '.join(user['recommended'])}")
        say(f"    then bought {user['then_bought']}")
    for line in _models(state):
        say(line)
    say("\nNext")
    say("  make dev                                            the graph and this run, at http://127.0.0.1:3000")
    say('  .venv/bin/sidlake query "from items_with_sids limit 5"')
    say("  .venv/bin/sidlake show 85123A                       one item and what shares its prefixes")
    if warehouse.location.filesystem is None:  # an object store's needs DuckDB's httpfs
        say(f"  duckdb {warehouse.root}/catalog.duckdb              the same views in DuckDB's own shell")


def _print_item(say: Callable[[str], None], card: dict[str, Any]) -> None:
    say(f"  {card['item_id']:<8} {card['sid']}  {card['title']}")
    for prefix in reversed(card["prefixes"]):
        if prefix["items"]:
            others = "1 other" if prefix["items"] == 1 else f"{prefix['items']:,} others"
            say(f"           {prefix['prefix']} also begins {others}: {'; '.join(prefix['examples'])}")
            return


def _quality(state: dict[str, Any]) -> list[str]:
    shown = ("raw_collision_rate", "raw_leaf_gini", "relative_reconstruction_error", "moved_share")
    rates = ("ehr_raw", "ehr_quantized", "ehr_reconstructed", "ehr_random_floor")
    values = {row["metric"]: row["value"] for row in state["quality"] if row["level"] is None}
    return [f"{name} {values[name]:.3f}" for name in (*shown, *rates) if values.get(name) is not None]


def _models(state: dict[str, Any]) -> list[str]:
    rows = [row for row in state["models"] if row["split"] == "test"]
    names = sorted({row["model"] for row in rows})
    values = {(row["model"], row["metric"]): row["value"] for row in rows}
    if not names:
        return []
    lines = ["\nNext-item prediction, each user's last purchase, over the whole catalogue"]
    for name in names:
        shown = [metric for metric in ("recall@10", "ndcg@10", "left_out_recall@10") if (name, metric) in values]
        figures = ", ".join(f"{metric} {values[name, metric]:.4f}" for metric in shown)
        lines.append(f"  {name:<14} {figures}")
    return lines


def _popular(warehouse: Warehouse) -> list[str]:
    """Return the items with most interactions, or the first ones of a catalogue without any."""
    release = get(warehouse)
    if "interactions" not in release.tables:
        items = warehouse.read("items", version=release.tables["items"], columns=["item_id"])
        return [str(item_id) for item_id in items.column("item_id").to_pylist()[:_NUM_ITEMS]]
    events = warehouse.scan("interactions", version=release.tables["interactions"])
    counts = events.group_by("item_id").len().sort("len", "item_id", descending=[True, False]).head(_NUM_ITEMS).collect()
    return counts["item_id"].to_list()
