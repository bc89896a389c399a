"""Tables: what is written is read back, at every version, through every reader, one commit per write."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidlake.errors import ContractError, NotFoundError, ReleaseConflict, StorageError, WarehouseBusy
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.tables import TABLES, Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))


@pytest.fixture
def warehouse(tmp_path):
    return Warehouse.create_or_open(tmp_path / 'it\'s a "house" *')


def _sorted(table):
    return table.sort_by("item_id").to_pylist()


def test_written_rows_are_read_back_unchanged_in_the_contract_types(warehouse):
    names = SAMPLE.item_ids(7)
    data = SAMPLE.items(names)
    assert warehouse.overwrite("items", data, run_id="run") == 0
    found = warehouse.read("items")
    assert found.schema.equals(CONTRACTS["items"], check_metadata=True)
    assert _sorted(found) == data.to_pylist()


_TEXT = st.text("aZ é'\"<\n\t\0\u202e漢😀", max_size=20)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(_TEXT, st.none() | st.lists(_TEXT, max_size=3), st.none() | st.binary(max_size=9)), max_size=6))
def test_write_then_read_is_the_identity_for_any_text_list_and_bytes(warehouse, rows):
    base = SAMPLE.items(SAMPLE.item_ids(len(rows))).to_pylist()
    new = [{**row, "title": text, "category": path, "image": image} for row, (text, path, image) in zip(base, rows, strict=True)]
    version = warehouse.overwrite("items", pa.Table.from_pylist(new, CONTRACTS["items"]), run_id="run")
    assert _sorted(warehouse.read("items", version=version)) == new
    assert warehouse.num_rows("items", version) == len(new)


def test_all_readers_see_the_same_rows_of_a_partitioned_table(warehouse):
    data = SAMPLE.interactions(SAMPLE.item_ids(9))
    warehouse.overwrite("interactions", data, run_id="run")
    expected = data.sort_by("item_id").to_pylist()
    assert _sorted(warehouse.read("interactions")) == expected
    assert warehouse.scan("interactions").sort("item_id").collect().to_dicts() == expected
    assert _sorted(pa.Table.from_batches(warehouse.batches("interactions", batch_size=2))) == expected
    assert all("/day=2026-01-0" in path and Path(path).exists() for path in warehouse.files("interactions"))


def test_batches_are_no_larger_than_asked_and_have_the_columns_asked_for(warehouse):
    warehouse.overwrite("items", SAMPLE.items(SAMPLE.item_ids(10)), run_id="run")
    batches = list(warehouse.batches("items", columns=["title", "item_id"], batch_size=4))
    assert [batch.num_rows for batch in batches] == [4, 4, 2]
    assert batches[0].schema.names == ["title", "item_id"]


def test_reading_an_unknown_column_is_refused_by_name(warehouse):
    warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="run")
    with pytest.raises(ValueError, match="colour"):
        warehouse.read("items", columns=["colour"])


def test_old_versions_stay_readable_after_new_ones(warehouse):
    first = warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="run")
    second = warehouse.append("items", SAMPLE.items(["b"]), run_id="run")
    third = warehouse.overwrite("items", SAMPLE.items(["c"]), run_id="run")
    seen = [sorted(warehouse.read("items", version=version)["item_id"].to_pylist()) for version in (first, second, third)]
    assert seen == [["a"], ["a", "b"], ["c"]]
    assert warehouse.scan("items", version=second).select(pl.len()).collect().item() == 2
    assert warehouse.num_rows("items", second) == 2


def test_an_empty_table_has_its_columns_for_every_reader(warehouse):
    warehouse.overwrite("interactions", CONTRACTS["interactions"].empty_table(), run_id="run")
    assert warehouse.read("interactions").schema.names == CONTRACTS["interactions"].names
    assert warehouse.scan("interactions").collect().columns == CONTRACTS["interactions"].names
    assert (warehouse.num_rows("interactions"), warehouse.files("interactions")) == (0, [])


def test_every_commit_names_its_run(warehouse):
    warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="first")
    warehouse.upsert("items", SAMPLE.items(["a", "b"]), ["item_id"], run_id="second")
    warehouse.restore("items", 0, run_id="third")
    log = DeltaTable(warehouse.table_url("items")).history()
    assert [entry["run_id"] for entry in log] == ["third", "second", "first"]


def test_the_log_is_never_cut_because_releases_name_old_versions(warehouse):
    warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="run")
    assert DeltaTable(warehouse.table_url("items")).metadata().configuration["delta.enableExpiredLogCleanup"] == "false"


def test_upsert_leaves_one_row_per_key_in_one_commit(warehouse):
    warehouse.overwrite("items", SAMPLE.items(["a'", "b"], title="old"), run_id="run")
    version = warehouse.upsert("items", SAMPLE.items(["b", "c"], title="new"), ["item_id"], run_id="run")
    titles = {row["item_id"]: row["title"] for row in warehouse.read("items").to_pylist()}
    assert (version, titles) == (1, {"a'": "old a'", "b": "new b", "c": "new c"})
    assert warehouse.num_rows("items") == 3


def test_upsert_into_a_table_that_does_not_exist_creates_it(warehouse):
    assert warehouse.upsert("items", SAMPLE.items(["a"]), ["item_id"], run_id="run") == 0


def test_upsert_refuses_a_key_that_occurs_twice(warehouse):
    with pytest.raises(ContractError, match="'item_id': 'a'"):
        warehouse.upsert("items", SAMPLE.items(["a", "a"]), ["item_id"], run_id="run")
    assert not warehouse.exists("items")


def test_restore_gives_the_head_the_content_of_an_older_version(warehouse):
    warehouse.overwrite("semantic_ids", SAMPLE.semantic_ids(["a"], [[0, 1, 2]]), run_id="run")
    longer = SAMPLE.semantic_ids(["a"], [[0, 1, 2, 0]], generation="g2", widths=(3, 4, 5, 2))
    warehouse.overwrite("semantic_ids", longer, run_id="run")
    assert warehouse.restore("semantic_ids", 0) == 2
    assert warehouse.read("semantic_ids").to_pylist() == SAMPLE.semantic_ids(["a"], [[0, 1, 2]]).to_pylist()


def test_restoring_the_head_makes_no_commit(warehouse):
    warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="run")
    assert warehouse.restore("items", 0) == 0


def test_a_generation_with_more_levels_is_appended_and_shorter_ones_stay(warehouse):
    short = SAMPLE.semantic_ids(["a"], [[0, 1, 2]])
    longer = SAMPLE.semantic_ids(["a"], [[0, 1, 2, 1]], generation="g2", widths=(3, 4, 5, 2))
    for data in (short, longer, SAMPLE.semantic_ids(["b"], [[1, 1, 2]])):
        warehouse.append("semantic_ids", data, run_id="run")
    rows = sorted((row["item_id"], row["generation"], row["code_3"]) for row in warehouse.read("semantic_ids").to_pylist())
    assert rows == [("a", "g1", None), ("a", "g2", 1), ("b", "g1", None)]
    assert warehouse.scan("semantic_ids").collect().height == 3


def _stage(warehouse, table, name="part.parquet", run_id="run", **options):
    path = warehouse.staging(run_id) / name
    pq.write_table(table, path, **options)
    return path


def test_staged_files_become_part_of_a_new_and_of_an_old_table_in_one_commit(warehouse):
    for version, names in enumerate((["a"], ["b", "c"])):
        files = [_stage(warehouse, SAMPLE.items([name]), f"{name}.parquet") for name in names]
        assert warehouse.append_files("items", files, run_id="run") == version
        assert not any(file.exists() for file in files)
    assert sorted(warehouse.read("items")["item_id"].to_pylist()) == ["a", "b", "c"]
    assert warehouse.num_rows("items") == 3
    assert warehouse.scan("items").collect().height == 3
    warehouse.discard_staging("run")
    assert not (warehouse.root / "runs" / "run" / "staging").exists()


def test_staged_files_of_a_longer_generation_widen_the_table(warehouse):
    warehouse.overwrite("semantic_ids", SAMPLE.semantic_ids(["a"], [[0, 1, 2]]), run_id="run")
    longer = SAMPLE.semantic_ids(["a"], [[0, 1, 2, 1]], generation="g2", widths=(3, 4, 5, 2))
    warehouse.append_files("semantic_ids", [_stage(warehouse, longer)], run_id="run")
    assert sorted(warehouse.read("semantic_ids")["code_3"].to_pylist(), key=str) == [1, None]


def test_a_staged_file_with_fixed_size_lists_is_refused_by_name_and_stays(warehouse):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0], pa.float32()), 2)
    columns = {"item_id": ["a"], "modality": ["text"], "encoder_id": ["e"], "content_hash": ["0"], "vector": vectors}
    file = _stage(warehouse, pa.table(columns))
    with pytest.raises(ContractError, match=r"part\.parquet.*vector"):
        warehouse.append_files("item_embeddings", [file], run_id="run")
    assert file.exists()
    assert not warehouse.exists("item_embeddings")


def test_a_staged_file_with_nulls_where_none_are_allowed_is_refused(warehouse):
    schema = pa.schema([field.with_nullable(True) for field in CONTRACTS["items"]])
    rows = SAMPLE.items(["a", "b"]).to_pylist()
    file = _stage(warehouse, pa.Table.from_pylist([{**rows[0], "title": None}, rows[1]], schema))
    with pytest.raises(ContractError, match=r"nulls in \['title'\]"):
        warehouse.append_files("items", [file], run_id="run")


def test_a_truncated_staged_file_is_a_storage_error_and_moves_nothing(warehouse):
    good, bad = _stage(warehouse, SAMPLE.items(["a"]), "good.parquet"), _stage(warehouse, SAMPLE.items(["b"]), "bad.parquet")
    bad.write_bytes(bad.read_bytes()[:-20])
    with pytest.raises(StorageError):
        warehouse.append_files("items", [good, bad], run_id="run")
    assert good.exists()
    assert not warehouse.exists("items")


def test_staged_files_come_back_when_the_commit_fails(warehouse):
    warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="run")
    entry = Path(warehouse.table_url("items")) / "_delta_log" / f"{0:020d}.json"
    entry.write_text(entry.read_text().replace('"minWriterVersion":2', '"minWriterVersion":99'))
    file = _stage(warehouse, SAMPLE.items(["b"]))
    with pytest.raises(StorageError):
        warehouse.append_files("items", [file], run_id="run")
    assert file.exists()
    assert warehouse.read("items")["item_id"].to_pylist() == ["a"]


def test_a_conditioned_append_fails_when_the_head_has_moved(warehouse):
    warehouse.append_at("items", SAMPLE.items(["a"]), head=None, run_id="run")
    assert warehouse.append_at("items", SAMPLE.items(["b"]), head=0, run_id="run") == 1
    for stale in (None, 0):
        with pytest.raises(ReleaseConflict, match="to 1"):
            warehouse.append_at("items", SAMPLE.items(["c"]), head=stale, run_id="run")
    assert sorted(warehouse.read("items")["item_id"].to_pylist()) == ["a", "b"]


def test_rows_that_break_the_contract_are_refused_before_anything_is_written(warehouse):
    with pytest.raises(ContractError, match="missing columns"):
        warehouse.append("items", pa.table({"item_id": ["a"]}), run_id="run")
    assert not warehouse.exists("items")


def test_a_table_or_version_that_does_not_exist_is_named(warehouse):
    with pytest.raises(NotFoundError, match="table items does not exist"):
        warehouse.read("items")
    warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="run")
    with pytest.raises(NotFoundError, match="no version 7; it has versions 0 to 0"):
        warehouse.read("items", version=7)
    with pytest.raises(ValueError, match=r"no table '\.\./items'"):
        warehouse.read("../items")


def test_a_first_commit_that_never_landed_leaves_no_table(warehouse):
    (Path(warehouse.table_url("items")) / "_delta_log").mkdir(parents=True)
    assert warehouse.version("items") is None
    assert warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="run") == 0


def test_the_head_that_a_listing_tells_is_the_one_that_delta_tells(warehouse):
    for name in "abcdefghijklm":  # more than ten commits: a checkpoint lies between the entries
        warehouse.append("items", SAMPLE.items([name]), run_id="run")
        assert warehouse.version("items") == DeltaTable(warehouse.table_url("items")).version()


def test_what_was_read_of_a_version_is_read_again_where_its_log_entry_is_another(warehouse):
    version = warehouse.overwrite("items", SAMPLE.items(["a", "b"]), run_id="run")
    assert warehouse.num_rows("items", version) == 2
    entry = Path(warehouse.table_url("items")) / "_delta_log" / f"{version:020d}.json"
    entry.write_text(entry.read_text().replace('\\"numRecords\\":2', '\\"numRecords\\":7'))
    assert warehouse.num_rows("items", version) == 7
    entry.write_text("damaged")
    with pytest.raises(StorageError):
        warehouse.num_rows("items", version)


def test_what_is_made_of_a_version_is_made_once_until_the_version_or_its_log_entry_is_another(warehouse):
    made = []

    def make():
        made.append(len(made))
        return made[-1]

    warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="run")
    assert [warehouse.made_of("items", 0, "count", make), warehouse.made_of("items", 0, "count", make)] == [0, 0]
    warehouse.overwrite("items", SAMPLE.items(["b"]), run_id="run")
    assert warehouse.made_of("items", 1, "count", make) == 1
    entry = Path(warehouse.table_url("items")) / "_delta_log" / f"{1:020d}.json"
    entry.write_text(entry.read_text() + "\n")
    assert warehouse.made_of("items", 1, "count", make) == 2


@pytest.mark.parametrize("run_id", ["", "..", ".hidden", "a/b", "a\nb"])
def test_a_run_id_that_is_no_plain_name_is_refused(warehouse, run_id):
    with pytest.raises(ValueError, match="run_id"):
        warehouse.staging(run_id)


def test_a_relative_root_is_made_absolute_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    warehouse = Warehouse.create_or_open("house")
    warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="run")
    monkeypatch.chdir("/")
    assert warehouse.read("items").num_rows == 1
    assert warehouse.files("items")[0].startswith(str(tmp_path / "house"))


def test_the_other_files_of_the_root_are_left_alone(tmp_path):
    (tmp_path / "tables.py").write_text("code")
    Warehouse.create_or_open(tmp_path).overwrite("items", SAMPLE.items(["a"]), run_id="run")
    assert (tmp_path / "tables.py").read_text() == "code"


def test_a_root_that_is_a_file_or_cannot_hold_delta_tables_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=str(tmp_path / "file")):
        Warehouse.create_or_open(tmp_path / "file")
    for name in ("a[1]", "a%20b", "a\\b", "day=1"):
        with pytest.raises(StorageError, match="contains"):
            Warehouse.create_or_open(tmp_path / name)


def test_the_same_run_may_nest_its_lock_and_another_may_not(warehouse):
    with warehouse.writing("one"):
        with warehouse.writing("one"):
            warehouse.overwrite("items", SAMPLE.items(["a"]), run_id="one")
        with pytest.raises(WarehouseBusy, match="run one") as busy:
            warehouse.append("items", SAMPLE.items(["b"]), run_id="two")
        assert busy.value.details["run_id"] == "one"
    warehouse.append("items", SAMPLE.items(["b"]), run_id="two")
    assert json.loads((warehouse.root / "writer.lock").read_text())["run_id"] == "two"


def test_the_lock_is_freed_when_a_block_fails(warehouse):
    with pytest.raises(KeyError), warehouse.writing("one"):
        raise KeyError
    with warehouse.writing("two"):
        pass


def test_every_contract_has_a_table_name():
    assert set(TABLES) == {*CONTRACTS, "semantic_ids"}
