"""Laws: each is broken once in storage, and verify names it."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from sidlake.errors import LawBroken, StorageError
from sidlake.tokenizers.semantic_id import format_sids, sid_keys
from sidlake.warehouse.contracts import conform, schema_of
from sidlake.warehouse.laws import verify
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))


@pytest.fixture(scope="module")
def lawful(tmp_path_factory):
    warehouse = Warehouse.create_or_open(tmp_path_factory.mktemp("laws") / "a 'quoted' house*")
    rows = [{"item_id": name, "modality": "text", "encoder_id": "e", "content_hash": "00", "vector": [0.0, 1.0]} for name in "ab"]
    vectors = pa.Table.from_pylist(rows, SAMPLE.CONTRACTS["item_embeddings"])
    return warehouse, SAMPLE.write(warehouse) | {"item_embeddings": warehouse.overwrite("item_embeddings", vectors, run_id="run")}


def _broken(lawful, table, change):
    """Return what verify says after `change` of the rows of `table`, written as a new version."""
    warehouse, versions = lawful
    rows = sorted(warehouse.read(table, version=versions[table]).to_pylist(), key=repr)
    rows = change(rows) or rows
    schema = schema_of(table, num_levels=3)
    version = warehouse.overwrite(table, conform(pa.Table.from_pylist(rows, schema), table, num_levels=3), run_id="bad")
    with pytest.raises(LawBroken) as failure:
        verify(warehouse, {**versions, table: version}, generation="g1")
    return {one["rule"]: one for one in failure.value.details["broken"]}


def test_a_lawful_release_passes_and_the_counts_are_those_of_the_log(lawful):
    warehouse, versions = lawful
    counts = verify(warehouse, versions, generation="g1")
    assert {table: counts[table] for table in versions} == {table: warehouse.num_rows(table, versions[table]) for table in versions}
    assert counts["items"] == 12


def _set(index=0, **values):
    return lambda rows: rows[index].update(values)


def _same_codes(rows):
    keep = ("item_id",)
    rows[1].update({name: value for name, value in rows[0].items() if name not in keep})


BREAKS = {
    "every item_id is there once and not empty": ("items", lambda rows: [*rows, rows[0]]),
    "every item has one SID": ("semantic_ids", lambda rows: [*rows, {**rows[0]}]),
    "every item has a SID": ("semantic_ids", lambda rows: rows[1:]),
    "every SID belongs to an item of the catalogue": ("semantic_ids", _set(item_id="stranger")),
    "every SID belongs to one item": ("semantic_ids", _same_codes),
    "every SID has a code per level": ("semantic_ids", _set(codes=[0, 0])),
    "every code is in its codebook": ("semantic_ids", _set(codes=[0, 0, 5], code_2=5)),
    "every raw code is in its codebook": ("semantic_ids", _set(raw_codes=[0, -1, 0])),
    "the code columns agree with codes": ("semantic_ids", _set(code_1=2)),
    "sid spells the codes": ("semantic_ids", _set(sid="<a_0><b_0><c_9>")),
    "sid_key is the codes in mixed radix": ("semantic_ids", _set(sid_key=None)),
    "interactions name known items": ("interactions", _set(item_id="stranger")),
    "interactions tell of one event per user, item and instant": (
        "interactions",
        lambda rows: [*rows, {**rows[0], "event": "view", "weight": 2.0}],
    ),
    "an item's content has one vector of each encoder": (
        "item_embeddings",
        lambda rows: [*rows, {**rows[0], "vector": [1.0, 0.0]}],
    ),
    "sequences have num_levels codes per item": ("user_sequences", _set(codes=[0, 0])),
    "sequence targets are known items": ("user_sequences", _set(target="stranger")),
    "sequences carry their items' codes": ("user_sequences", _set(codes=[0, 0, 0, 0, 0, 1, 0, 0, 1])),
    "trie nodes are numbered from 0 within their level": ("sid_trie", _set(node=77)),
    "trie leaves, and only they, name an item and have no children": ("sid_trie", _set(item_id="stranger", level=0)),
    "every trie leaf spells its item's SID": (
        "sid_trie",
        lambda rows: [row for row in rows if row["level"] < 2 or row["node"] < 11],
    ),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_broken_law_is_named_with_its_count_and_examples(lawful, rule):
    broken = _broken(lawful, *BREAKS[rule])
    assert broken[rule]["count"] >= 1
    assert broken[rule]["examples"]


def test_a_trie_that_swaps_two_items_is_refused(lawful):
    def swap(rows):
        leaves = [row for row in rows if row["item_id"]]
        leaves[0]["item_id"], leaves[1]["item_id"] = leaves[1]["item_id"], leaves[0]["item_id"]

    assert _broken(lawful, "sid_trie", swap)["every trie leaf spells its item's SID"]["count"] == 2


def test_an_item_on_two_trie_leaves_is_refused(lawful):
    def double(rows):
        leaves = sorted((row for row in rows if row["level"] == 2), key=lambda row: row["node"])
        leaves[1]["item_id"] = leaves[0]["item_id"]

    assert "every item has one trie leaf" in _broken(lawful, "sid_trie", double)


def test_codebooks_with_a_gap_are_refused(lawful):
    warehouse, versions = lawful
    rows = [row for row in warehouse.read("codebooks", version=versions["codebooks"]).to_pylist() if row["code"] != 1]
    version = warehouse.overwrite("codebooks", pa.Table.from_pylist(rows, SAMPLE.CONTRACTS["codebooks"]), run_id="bad")
    with pytest.raises(LawBroken, match="without gaps"):
        verify(warehouse, {**versions, "codebooks": version}, generation="g1")


def test_a_release_without_its_semantic_ids_is_incomplete(lawful):
    warehouse, versions = lawful
    with pytest.raises(LawBroken, match="missing semantic_ids"):
        verify(warehouse, {name: versions[name] for name in versions if name != "semantic_ids"}, generation="g1")


def test_a_published_sid_that_moved_is_refused_and_a_new_generation_may_move_it(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    before = SimpleNamespace(release_id="r000001", generation="g1", tables=SAMPLE.write(warehouse, 12))
    grown = SAMPLE.write(warehouse, 15)
    alone = verify(warehouse, grown, generation="g1")["laws"]
    assert verify(warehouse, grown, generation="g1", previous=before)["laws"] == alone + 2
    moved = SAMPLE.write(warehouse, 12, skip=1)
    with pytest.raises(LawBroken, match="no SID published in r000001 moved") as failure:
        verify(warehouse, moved, generation="g1", previous=before)
    assert failure.value.details["count"] == 12
    other = SAMPLE.write(warehouse, 12, skip=1, generation="g2")
    assert verify(warehouse, other, generation="g2", previous=before)["laws"] == alone


def test_the_laws_of_sid_and_key_agree_with_the_tokenizer(tmp_path):
    """The warehouse spells SIDs in SQL; the tokenizer's own functions are the oracle."""
    warehouse = Warehouse.create_or_open(tmp_path)
    codes = SAMPLE.codes_of(60)
    table = SAMPLE.semantic_ids(SAMPLE.item_ids(60), codes)
    assert table["sid"].to_pylist() == format_sids(codes)
    assert table["sid_key"].to_pylist() == sid_keys(codes, SAMPLE.WIDTHS).tolist()
    verify(warehouse, SAMPLE.write(warehouse, 60), generation="g1")


def test_a_code_space_beyond_63_bits_has_no_key(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    widths = (2,) * 22 + (8,) * 14  # 2**64 SIDs
    widths = tuple(itertools.islice(widths, 26 - 8)) + (64,) * 8  # 26 levels: 2**66 SIDs
    codes = [[0] * 25 + [value] for value in range(3)]
    table = SAMPLE.semantic_ids(["a", "b", "c"], codes, widths=widths)
    versions = {
        "items": warehouse.overwrite("items", SAMPLE.items(["a", "b", "c"]), run_id="run"),
        "codebooks": warehouse.overwrite("codebooks", SAMPLE.codebooks(widths=widths), run_id="run"),
        "semantic_ids": warehouse.overwrite("semantic_ids", table, run_id="run"),
    }
    with pytest.raises(LawBroken, match="sid_key"):
        verify(warehouse, versions, generation="g1")
    keyless = table.set_column(table.schema.get_field_index("sid_key"), "sid_key", pa.nulls(3, pa.int64()))
    versions["semantic_ids"] = warehouse.overwrite("semantic_ids", keyless, run_id="run")
    assert sid_keys(codes, widths) is None
    verify(warehouse, versions, generation="g1")


def test_a_truncated_file_is_named(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    versions = SAMPLE.write(warehouse)
    path = Path(warehouse.files("semantic_ids")[0])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StorageError, match=path.name):
        verify(warehouse, versions, generation="g1")


def test_a_missing_file_is_named(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    versions = SAMPLE.write(warehouse)
    path = Path(warehouse.files("interactions")[0])
    path.unlink()
    with pytest.raises(StorageError, match=path.name):
        verify(warehouse, versions, generation="g1")


def test_a_file_of_the_right_size_with_damaged_bytes_is_named(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    versions = SAMPLE.write(warehouse)
    path = Path(warehouse.files("semantic_ids")[0])
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(len(data) - 4))
    with pytest.raises(StorageError, match=path.name):
        verify(warehouse, versions, generation="g1")


def test_a_file_replaced_by_another_whole_one_is_named(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path / "one")
    versions = SAMPLE.write(warehouse)
    other = Warehouse.create_or_open(tmp_path / "other")
    other.overwrite("items", SAMPLE.items(SAMPLE.item_ids(12), title="a longer title"), run_id="run")
    path = Path(warehouse.files("items")[0])
    path.write_bytes(Path(other.files("items")[0]).read_bytes())
    with pytest.raises(StorageError, match=path.name):
        verify(warehouse, versions, generation="g1")
