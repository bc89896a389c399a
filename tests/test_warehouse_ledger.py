"""The ledger: what was ever published in a generation is nobody else's, after rollback, retirement, vacuum, crash and race."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import warehouse_sample as sample

from sidlake.errors import LawBroken, ReleaseConflict, StorageError
from sidlake.warehouse import ledger, releases
from sidlake.warehouse.catalog import query
from sidlake.warehouse.contracts import CONTRACTS, conform
from sidlake.warehouse.holds import lift
from sidlake.warehouse.keep.retention import Retention
from sidlake.warehouse.keep.vacuum import vacuum
from sidlake.warehouse.laws import verify
from sidlake.warehouse.releases import current, history, publish, rollback
from sidlake.warehouse.tables import Warehouse

OLD = Path(__file__).with_name("data") / "release-0.1"


@pytest.fixture
def warehouse(tmp_path):
    return Warehouse.create_or_open(tmp_path / "lake")


def write(warehouse, sid_of, *, run_id="run", generation="g1"):
    """Write the tables of a release in which these items have these SIDs, given as codes in digits: {"a": "012"}."""
    names, codes = list(sid_of), [[int(code) for code in sid] for sid in sid_of.values()]
    content = {
        "items": sample.items(names),
        "codebooks": sample.codebooks(generation),
        "semantic_ids": sample.semantic_ids(names, codes, generation=generation),
        "sid_quality": sample.quality(),
    }
    return {table: warehouse.overwrite(table, data, run_id=run_id) for table, data in content.items()}


def release_of(warehouse, sid_of, *, run_id="run", generation="g1"):
    """Publish a release in which these items have these SIDs, whatever holds."""
    latest = current(warehouse)
    draft = sample.draft(write(warehouse, sid_of, run_id=run_id, generation=generation), run_id=run_id, generation=generation)
    return publish(warehouse, draft, expected_parent=latest and latest.release_id, despite_hold="a test")


def in_ledger(warehouse, generation="g1"):
    """Return item: (SID in digits, first release)."""
    taken = ledger.taken(warehouse, generation)
    rows = ledger.rows_of(warehouse, generation, taken["item_id"]).to_pylist()
    assert [row["codes"] for row in rows] == taken["codes"].to_pylist()
    return {row["item_id"]: ("".join(map(str, row["codes"])), row["release_id"]) for row in rows}


def test_the_ledger_has_every_sid_with_the_release_that_named_it_first(warehouse):
    release_of(warehouse, {"a": "000", "b": "001"})
    release_of(warehouse, {"a": "000", "b": "001", "c": "002"})
    release_of(warehouse, {"a": "112"}, generation="g2")
    assert in_ledger(warehouse) == {"a": ("000", "r000001"), "b": ("001", "r000001"), "c": ("002", "r000002")}
    assert in_ledger(warehouse, "g2") == {"a": ("112", "r000003")}
    assert ledger.generations(warehouse) == {"g1", "g2"}
    assert query(warehouse, "SELECT count(*) AS n FROM sid_ledger").to_pylist() == [{"n": 4}]


def test_a_release_without_a_new_sid_leaves_the_ledger_as_it_is(warehouse):
    release_of(warehouse, {"a": "000", "b": "001"})
    version = warehouse.version("sid_ledger")
    release_of(warehouse, {"a": "000", "b": "001"})
    assert warehouse.version("sid_ledger") == version


def test_after_a_rollback_a_published_sid_is_given_to_no_other_item(warehouse):
    release_of(warehouse, {"a": "000"})
    release_of(warehouse, {"a": "000", "b": "001"})
    rollback(warehouse, "r000001", "b was a mistake")
    with pytest.raises(
        LawBroken, match=r"no SID is another item's by the ledger: 1 times not, such as .*c has <a_0><b_0><c_1> of b"
    ):
        release_of(warehouse, {"a": "000", "c": "001"})
    release_of(warehouse, {"a": "000", "c": "002"})


def test_after_a_rollback_an_item_gets_no_other_sid_than_it_had(warehouse):
    release_of(warehouse, {"a": "000"})
    release_of(warehouse, {"a": "000", "b": "001"})
    rollback(warehouse, "r000001", "b was a mistake")
    with pytest.raises(LawBroken, match="no item has another SID than by the ledger"):
        release_of(warehouse, {"a": "000", "b": "002"})
    assert release_of(warehouse, {"a": "000", "b": "001"}).release_id == "r000004"


def test_a_new_generation_is_bound_by_nothing_that_an_older_one_gave(warehouse):
    release_of(warehouse, {"a": "000", "b": "001"})
    release_of(warehouse, {"a": "001", "b": "000"}, generation="g2")
    with pytest.raises(LawBroken, match="ledger"):
        release_of(warehouse, {"a": "000", "b": "002"})


def test_what_a_vacuum_frees_stays_in_the_ledger(warehouse):
    release_of(warehouse, {"a": "000", "b": "001"})
    release_of(warehouse, {"a": "012"}, generation="g2")
    before = in_ledger(warehouse)
    assert vacuum(warehouse, Retention(keep=1, days=None), grace=timedelta(0)).unreadable == ["r000001"]
    assert in_ledger(warehouse) == before == {"a": ("000", "r000001"), "b": ("001", "r000001")}
    verify(warehouse, current(warehouse).tables, generation="g2")


class Killed(Exception):
    """Stands for the end of a process: nothing catches it."""


def dies_before_its_release(warehouse, sid_of, monkeypatch, **settings):
    """Publish as far as the ledger, and die where the release would have been committed."""

    def die(*_):
        raise Killed

    append = releases._append
    monkeypatch.setattr(releases, "_append", die)
    with pytest.raises(Killed):
        release_of(warehouse, sid_of, run_id="dead", **settings)
    monkeypatch.setattr(releases, "_append", append)


def test_a_run_that_dies_before_its_release_leaves_sids_that_stay_their_items(warehouse, monkeypatch):
    release_of(warehouse, {"a": "000"})
    dies_before_its_release(warehouse, {"a": "000", "b": "001"}, monkeypatch)
    assert len(history(warehouse)) == 1
    for unaware in ({"a": "000", "c": "001"}, {"a": "000", "b": "002"}):
        with pytest.raises(ReleaseConflict, match=r"run dead has given SIDs while this run was at work, such as .*; run again"):
            release_of(warehouse, unaware)
    release_of(warehouse, {"a": "000", "b": "001", "c": "002"})
    assert in_ledger(warehouse)["b"] == ("001", "r000002")


def test_a_generation_whose_first_release_never_came_is_known_to_the_ledger(warehouse, monkeypatch):
    release_of(warehouse, {"a": "000"})
    dies_before_its_release(warehouse, {"a": "002"}, monkeypatch, generation="g2")
    assert ledger.generations(warehouse) == {"g1", "g2"}


def test_of_two_machines_that_give_one_sid_the_second_is_refused(warehouse, tmp_path, monkeypatch):
    """Between the second one's look at the ledger and its own commit the first one gives the SID, and dies before its release."""
    release_of(warehouse, {"a": "000"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "delta").symlink_to(warehouse.root / "delta")
    other = Warehouse(tmp_path / "other")
    judge = releases.verify

    def judged_too_early(*given, **settings):
        counts = judge(*given, **settings)
        monkeypatch.setattr(releases, "verify", judge)
        dies_before_its_release(other, {"a": "000", "b": "001"}, monkeypatch)
        return counts

    monkeypatch.setattr(releases, "verify", judged_too_early)
    with pytest.raises(ReleaseConflict, match="table sid_ledger moved from version 0 to 1"):
        release_of(warehouse, {"a": "000", "c": "001"})
    assert in_ledger(warehouse) == {"a": ("000", "r000001"), "b": ("001", "r000002")}


def test_a_damaged_ledger_is_named_by_rollback(warehouse):
    release_of(warehouse, {"a": "000"})
    release_of(warehouse, {"a": "000", "b": "001"})
    path = Path(warehouse.files("sid_ledger")[0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StorageError, match=f"not as they were published: {path}"):
        rollback(warehouse, "r000001", "back")


# ------------------------------------------------------------------------------------------- warehouses of earlier versions


@pytest.fixture
def older(tmp_path):
    """A warehouse that an earlier version wrote: two releases, 26 and then 30 items."""
    shutil.copytree(OLD, tmp_path / "older")
    return Warehouse.create_or_open(tmp_path / "older")


def test_an_older_warehouse_gets_its_ledger_from_its_releases_at_the_first_write(older):
    assert len(ledger.taken(older, "g0001")) == 0
    rollback(older, "r000001", "four were too many")
    rows = ledger.rows_of(older, "g0001", ledger.taken(older, "g0001")["item_id"]).to_pylist()
    assert [sum(row["release_id"] == name for row in rows) for name in ("r000001", "r000002")] == [26, 4]
    assert verify(older, current(older).tables, generation="g0001")["sid_ledger"] == 30


def test_what_an_older_version_rolled_back_is_kept_from_others_too(older):
    second = history(older)[1]
    rollback(older, "r000001", "four were too many")
    rows = older.read("semantic_ids", version=second.tables["semantic_ids"]).to_pylist()
    stolen = rows[-1] | {"item_id": "thief"}
    tables = dict(current(older).tables)
    tables["semantic_ids"] = older.append_at(
        "semantic_ids",
        conform(pa.Table.from_pylist([stolen]), "semantic_ids", num_levels=3),
        head=older.restore("semantic_ids", tables["semantic_ids"]),
        run_id="run",
    )
    with pytest.raises(LawBroken, match="no SID is another item's by the ledger"):
        verify(older, tables, generation="g0001")


def test_where_releases_of_an_older_version_contradict_each_other_the_later_one_is_right(warehouse):
    """Until there was a ledger, a refresh after a rollback could give a published SID to another item."""
    kept = []
    for sid_of in ({"a": "000"}, {"a": "000", "b": "001", "c": "002"}, {"a": "000", "d": "001", "b": "003"}):
        tables = write(warehouse, sid_of)
        latest = current(warehouse)
        row = releases._next(latest, status="published", digest="", draft=_draft_of(tables))
        releases._append(warehouse, row, warehouse.version("releases"), "older")
        kept.append(row)
    assert ledger.founded(warehouse, kept, run_id="run") == 0
    assert in_ledger(warehouse) == {
        "a": ("000", "r000001"), "b": ("003", "r000003"), "c": ("002", "r000002"), "d": ("001", "r000003"),
    }  # fmt: skip
    verify(warehouse, current(warehouse).tables, generation="g1")
    with pytest.raises(LawBroken, match="by the ledger"):
        verify(warehouse, kept[1].tables, generation="g1")


def _draft_of(tables):
    draft = sample.draft(tables)
    return {name: getattr(draft, name) for name in draft.__dataclass_fields__ if name != "run_id"}


def test_retired_sids_of_an_older_warehouse_are_in_its_ledger(warehouse):
    tables = write(warehouse, {"a": "000"})
    gone = sample.semantic_ids(["b"], [[0, 0, 1]]).to_pylist()[0] | {"retired_at": sample.NOW}
    rows = [{name: gone[name] for name in CONTRACTS["retired_sids"].names}]
    tables["retired_sids"] = warehouse.overwrite(
        "retired_sids", pa.Table.from_pylist(rows, CONTRACTS["retired_sids"]), run_id="run"
    )
    row = releases._next(None, status="published", digest="", draft=_draft_of(tables))
    releases._append(warehouse, row, None, "older")
    ledger.founded(warehouse, [row], run_id="run")
    assert in_ledger(warehouse) == {"a": ("000", "r000001"), "b": ("001", "r000001")}


def test_a_hold_that_was_lifted_lets_the_next_run_publish_within_the_ledger(warehouse):
    release_of(warehouse, {"a": "000"})
    release_of(warehouse, {"a": "000", "b": "001"})
    lift(warehouse, rollback(warehouse, "r000001", "b was a mistake"), reason="the source was mended")
    tables = write(warehouse, {"a": "000", "b": "001"})
    assert publish(warehouse, sample.draft(tables), expected_parent="r000003").release_id == "r000004"
