"""The diff of two releases: numbers counted by hand, and the same with and without files in common."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from sidlake.errors import NotFoundError
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.diff import diff
from sidlake.warehouse.keep.pins import pin
from sidlake.warehouse.releases import publish
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    """r000001: 12 items. r000002: one retired, one with new content, three added, same generation. r000003: other codebooks."""
    warehouse = Warehouse.create_or_open(tmp_path_factory.mktemp("lake"))
    publish(warehouse, SAMPLE.draft(SAMPLE.write(warehouse, 12)), expected_parent=None)

    names, codes = SAMPLE.item_ids(15), SAMPLE.codes_of(15)
    items = SAMPLE.items(names).to_pylist()
    items[3]["content_hash"] = "new"
    kept = [row for row in range(15) if row != 5]
    content = {
        "items": type(SAMPLE.items(names)).from_pylist([items[row] for row in kept], SAMPLE.items(names).schema),
        "semantic_ids": SAMPLE.semantic_ids([names[row] for row in kept], [codes[row] for row in kept]),
        "codebooks": SAMPLE.codebooks(),
        "sid_quality": SAMPLE.quality("warn", 0.2),
    }
    tables = {table: warehouse.overwrite(table, data, run_id="run") for table, data in content.items()}
    (left,) = SAMPLE.semantic_ids([names[5]], [codes[5]]).to_pylist()
    held = pa.Table.from_pylist([left | {"retired_at": SAMPLE.NOW}], CONTRACTS["retired_sids"])
    tables["retired_sids"] = warehouse.append("retired_sids", held, run_id="run")
    draft = SAMPLE.draft(tables)
    publish(warehouse, draft, expected_parent="r000001")
    publish(
        warehouse, SAMPLE.draft(SAMPLE.write(warehouse, 12, skip=1, generation="g2"), generation="g2"), expected_parent="r000002"
    )
    return warehouse


def test_items_are_counted_by_what_happened_to_them(warehouse):
    items = diff(warehouse, "r000001", "r000002").items
    assert (items.before, items.after, items.added, items.retired, items.changed) == (12, 14, 3, 1, 1)
    names = SAMPLE.item_ids(15)
    assert items.examples == {"added": sorted(names[12:]), "retired": [names[5]], "changed": [names[3]]}


def test_within_a_generation_no_sid_moves(warehouse):
    sids = diff(warehouse, "r000001", "r000002").sids
    assert (sids.same_generation, sids.kept, sids.moved, sids.added, sids.retired) == (True, 11, 0, 3, 1)
    assert sids.kept_prefixes == [11, 11, 11]


def test_the_way_back_exchanges_added_and_retired(warehouse):
    items = diff(warehouse, "r000002", "r000001").items
    assert (items.added, items.retired, items.changed) == (1, 3, 1)


def test_across_generations_moved_sids_and_kept_prefixes_are_counted(warehouse):
    sids = diff(warehouse, "r000001", "r000003").sids
    before, after = SAMPLE.codes_of(12), SAMPLE.codes_of(12, skip=1)
    agreeing = [sum(a[:depth] == b[:depth] for a, b in zip(before, after, strict=True)) for depth in (1, 2, 3)]
    assert (sids.same_generation, sids.kept, sids.moved) == (False, agreeing[2], 12 - agreeing[2])
    assert sids.kept_prefixes == agreeing
    assert agreeing[0] > agreeing[2]
    assert sids.examples[0] == {"item_id": SAMPLE.item_ids(1)[0], "before": "<a_0><b_0><c_0>", "after": "<a_0><b_0><c_1>"}


def test_metrics_that_differ_are_shown_with_both_verdicts(warehouse):
    (change,) = diff(warehouse, "r000001", "r000002").metrics
    assert (change.metric, change.level, change.before, change.after) == ("collision_rate", None, 0.1, 0.2)
    assert (change.verdict_before, change.verdict_after) == ("pass", "warn")


def test_a_release_does_not_differ_from_itself(warehouse):
    pin(warehouse, "prod", "r000002")
    found = diff(warehouse, "r000002", "prod")
    assert (found.same_content, found.metrics, found.rows, found.settings) == (True, [], {}, {})
    assert (found.sids.kept, found.sids.moved, found.items.changed, found.items.examples) == (14, 0, 0, {})


def test_rows_of_files_in_common_are_counted_once(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    tables = SAMPLE.write(warehouse, 12)
    publish(warehouse, SAMPLE.draft(tables), expected_parent=None)
    names, codes = SAMPLE.item_ids(15), SAMPLE.codes_of(15)
    new = {"items": SAMPLE.items(names[12:]), "semantic_ids": SAMPLE.semantic_ids(names[12:], codes[12:])}
    tables = {**tables, **{table: warehouse.append(table, data, run_id="run") for table, data in new.items()}}
    tables = {table: tables[table] for table in ("items", "semantic_ids", "codebooks", "sid_quality")}
    publish(warehouse, SAMPLE.draft(tables), expected_parent="r000001")
    found = diff(warehouse, "r000001")
    assert (found.items.before, found.items.added, found.items.retired, found.items.changed) == (12, 3, 0, 0)
    assert (found.sids.kept, found.sids.added, found.sids.kept_prefixes) == (12, 3, [12, 12, 12])
    assert found.rows == {"items": (12, 15), "semantic_ids": (12, 15)} | {
        table: (warehouse.num_rows(table, 0), None) for table in ("interactions", "user_sequences", "sid_trie")
    }


def test_an_unknown_release_is_refused(warehouse):
    with pytest.raises(NotFoundError, match="r000009"):
        diff(warehouse, "r000009")
