"""What a publication remembers of files: believed while they are the same files, and nothing but a cache."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
import warehouse_sample as sample

from sidlake.errors import LawBroken, StorageError
from sidlake.warehouse.content import content_hash
from sidlake.warehouse.hashing.verified_files import Verified
from sidlake.warehouse.laws import verify
from sidlake.warehouse.releases import publish
from sidlake.warehouse.tables import Warehouse

HOUR = 3600


def at(warehouse, seconds):
    """Date every data file that many seconds from now, so that no test depends on how fast it is."""
    for path in (warehouse.root / "delta").rglob("*.parquet"):
        then = path.stat().st_ctime + seconds
        os.utime(path, (then, then))


@pytest.fixture
def warehouse(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path / "lake")
    tables = sample.write(warehouse)
    at(warehouse, -HOUR)
    publish(warehouse, sample.draft(tables), expected_parent=None)
    return warehouse


TABLES = {table: 0 for table in ("items", "interactions", "codebooks", "semantic_ids", "sid_quality", "user_sequences", "sid_trie")}


def memory(warehouse):
    return warehouse.root / "verified.json"


def forge(warehouse, change):
    """Change what is remembered, with a digest that is right again."""
    found = json.loads(memory(warehouse).read_text())
    change(found["content"])
    found["sha256"] = hashlib.sha256(json.dumps(found["content"], sort_keys=True).encode()).hexdigest()
    memory(warehouse).write_text(json.dumps(found))


def again(warehouse, tables=TABLES, **options):
    """Publish `tables` with other metrics' values, so that there is something new."""
    version = warehouse.overwrite("sid_quality", sample.quality(value=0.2), run_id="run")
    return publish(warehouse, sample.draft({**tables, "sid_quality": version}), expected_parent="r000001", **options)


def test_files_that_were_published_are_known_and_new_ones_are_not(warehouse):
    rows = sample.interactions(sample.item_ids(1)).set_column(0, "user_id", [["new"]])
    version = warehouse.append("interactions", rows, run_id="run")
    known = Verified(warehouse, trusting=True)
    new = set(warehouse.files("interactions", version=version)) - set(warehouse.files("interactions", version=0))
    assert set(known.unknown("interactions", version)) == new
    assert {table: known.unknown(table, 0) for table in TABLES} == {table: [] for table in TABLES}
    assert Verified(warehouse).unknown("items", 0) == warehouse.files("items", version=0)


def test_a_publication_believes_what_it_knows_of_a_file_and_with_reread_it_does_not(warehouse):
    def add_a_row(content):
        (entry,) = [entry for name, entry in content["files"].items() if "/delta/items/" in name]
        entry["sums"][""][1] += 1

    forge(warehouse, add_a_row)
    believed = again(warehouse)
    true = content_hash(warehouse, believed.tables, "g1")
    assert believed.content_hash != true
    tables = {**believed.tables, "sid_quality": warehouse.overwrite("sid_quality", sample.quality(value=0.3), run_id="run")}
    read = publish(warehouse, sample.draft(tables), expected_parent="r000002", reread=True)
    assert read.content_hash == content_hash(warehouse, read.tables, "g1")
    assert Verified(warehouse, trusting=True).sum_of("items", 0, warehouse.files("items", version=0)[0], "").num_rows == 12


def test_a_file_that_was_written_again_is_read_again(warehouse):
    path = Path(warehouse.files("items", version=0)[0])
    path.write_bytes(path.read_bytes())
    assert Verified(warehouse, trusting=True).unknown("items", 0) == [str(path)]


def test_a_file_put_back_with_its_old_date_is_read_again(warehouse):
    path = Path(warehouse.files("items", version=0)[0])
    before = path.stat()
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert Verified(warehouse, trusting=True).unknown("items", 0) == [str(path)]


def test_files_too_young_to_tell_a_second_writing_are_not_remembered(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path / "lake")
    tables = sample.write(warehouse)
    at(warehouse, HOUR)
    publish(warehouse, sample.draft(tables), expected_parent=None)
    known = Verified(warehouse, trusting=True)
    assert {table: known.unknown(table, 0) for table in TABLES} == {table: warehouse.files(table, version=0) for table in TABLES}
    assert not known.held("anything", [known.state("items", 0)])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"sums"', b'"Sums"')),
        lambda path: path.write_text(path.read_text().replace('"version": 1', '"version": 2')),
        lambda path: path.write_bytes(b"\xff\x00"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text('{"version": 1}'),
    ],
)
def test_a_memory_that_is_gone_cut_off_or_foreign_changes_nothing_but_the_time(warehouse, spoil):
    spoil(memory(warehouse))
    assert Verified(warehouse, trusting=True).unknown("items", 0) == warehouse.files("items", version=0)
    release = again(warehouse)
    assert release.content_hash == content_hash(warehouse, release.tables, "g1")
    assert Verified(warehouse, trusting=True).unknown("items", 0) == []


def test_a_law_that_held_of_these_very_files_is_not_asked_again(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path / "lake")
    tables = {name: version for name, version in sample.write(warehouse).items() if name in ("items", "semantic_ids", "codebooks")}
    at(warehouse, -HOUR)
    known = Verified(warehouse)
    verify(warehouse, tables, generation="g1", verified=known)
    path = Path(warehouse.files("semantic_ids")[0])
    other = Warehouse.create_or_open(tmp_path / "other")
    twice = sample.semantic_ids(sample.item_ids(12), sample.codes_of(11) + sample.codes_of(1))
    other.overwrite("semantic_ids", twice, run_id="run")
    path.write_bytes(Path(other.files("semantic_ids")[0]).read_bytes())
    tables["items"] = warehouse.overwrite("items", sample.items(sample.item_ids(11)), run_id="run")
    with pytest.raises(LawBroken) as failure:
        verify(warehouse, tables, generation="g1", verified=known)
    rules = [one["rule"] for one in failure.value.details["broken"]]
    assert rules == ["every SID belongs to an item of the catalogue"]  # it reads `items`, which is another
    tables["semantic_ids"] = warehouse.overwrite("semantic_ids", twice, run_id="run")
    with pytest.raises(LawBroken, match="every SID belongs to one item"):
        verify(warehouse, tables, generation="g1", verified=known)


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("twice", ["with an old one", "among themselves", "not"])
def test_an_event_that_a_new_file_brings_twice_is_refused(warehouse, twice, remembered):
    names = sample.item_ids(2)
    rows = sample.interactions(names)
    if twice != "with an old one":
        rows = rows.set_column(rows.schema.get_field_index("user_id"), "user_id", pa.array(["new", "new"]))
    if twice == "among themselves":
        rows = pa.concat_tables([rows, rows])
    version = warehouse.append("interactions", rows, run_id="run")
    if not remembered:
        memory(warehouse).unlink()
    tables = {**TABLES, "interactions": version}
    if twice == "not":
        assert again(warehouse, tables).release_id == "r000002"
        return
    with pytest.raises(LawBroken, match="one event per user, item and instant: 2 times not"):
        again(warehouse, tables)


def test_damage_in_an_old_file_is_found_by_the_next_publication_where_it_changes_the_file(warehouse):
    path = Path(warehouse.files("items", version=0)[0])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match=path.name):
        again(warehouse)
