"""The content hash depends on the released rows and on nothing else."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.warehouse.content import _column_digests, content_hash
from sidlake.warehouse.contracts import conform
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    warehouse = Warehouse.create_or_open(tmp_path_factory.mktemp("content"))
    versions = SAMPLE.write(warehouse)
    return warehouse, versions, content_hash(warehouse, versions, "g1")


def _hash_after(written, table, change):
    warehouse, versions, _ = written
    rows = warehouse.read(table, version=versions[table]).to_pylist()
    change(rows[0])
    data = pa.Table.from_pylist(rows, warehouse.schema(table, version=versions[table]))
    return content_hash(warehouse, {**versions, table: warehouse.overwrite(table, data, run_id="run")}, "g1")


def test_files_row_order_compression_directory_and_time_do_not_count(written, tmp_path):
    other = Warehouse.create_or_open(tmp_path / "another place")
    warehouse, versions, expected = written
    again = {}
    for table, version in versions.items():
        data = warehouse.read(table, version=version)
        backwards = data.take(list(range(data.num_rows))[::-1])
        if table == "interactions":
            again[table] = other.overwrite(table, backwards, run_id="x")
            continue
        levels = 3 if table == "semantic_ids" else None
        files = []
        for index, start in enumerate(range(0, data.num_rows, 5)):
            files.append(other.staging("x") / f"{table}-{index}.parquet")
            part = conform(backwards.slice(start, 5), table, num_levels=levels)
            pq.write_table(part, files[-1], compression=["zstd", "none"][index % 2], row_group_size=2)
        again[table] = other.append_files(table, files, run_id="x")
    assert content_hash(other, again, "g1") == expected


@pytest.mark.parametrize(("table", "column"), [("items", "updated_at"), ("semantic_ids", "assigned_at")])
def test_when_a_row_was_written_does_not_count(written, table, column):
    later = datetime(2030, 1, 1, tzinfo=UTC)
    assert _hash_after(written, table, lambda row: row.update({column: later})) == written[2]


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("items", {"title": "other"}),
        ("items", {"price": None}),
        ("items", {"category": ["ab"]}),
        ("items", {"category": None}),
        ("items", {"image": b""}),
        ("interactions", {"weight": 1.0000001}),
        ("codebooks", {"centroid": [0.0, 1e-45]}),
        ("semantic_ids", {"moved": True}),
        ("sid_quality", {"value": 0.2}),
        ("sid_quality", {"level": 0}),
        ("user_sequences", {"target": "x"}),
        ("sid_trie", {"child_end": 9}),
    ],
)
def test_every_released_value_counts(written, table, values):
    assert _hash_after(written, table, lambda row: row.update(values)) != written[2]


def test_other_generations_of_the_same_tables_do_not_count(written):
    warehouse, versions, expected = written
    longer = SAMPLE.semantic_ids(["a"], [[0, 1, 2, 1]], generation="g2", widths=(3, 4, 5, 2))
    warehouse.restore("semantic_ids", versions["semantic_ids"])
    version = warehouse.append("semantic_ids", longer, run_id="run")
    assert content_hash(warehouse, {**versions, "semantic_ids": version}, "g1") == expected


_VALUES = {
    pa.string(): st.none() | st.text("ab é", max_size=4),
    pa.binary(): st.none() | st.binary(max_size=3),
    pa.int32(): st.none() | st.integers(-5, 5),
    pa.float32(): st.none() | st.floats(width=32, allow_nan=False),
    pa.bool_(): st.none() | st.booleans(),
    pa.list_(pa.string()): st.none() | st.lists(st.none() | st.text("ab", max_size=2), max_size=3),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(list(_VALUES)))
def test_two_columns_have_one_digest_exactly_when_their_values_are_equal_however_they_are_batched(data, kind):
    values = st.lists(_VALUES[kind], min_size=1, max_size=6)
    left, right = data.draw(values), data.draw(values)
    schema = pa.schema([("c", kind)])

    def digest(rows, size):
        array = pa.array([None, *rows], kind)[1:]  # sliced: offsets do not start at 0
        return _column_digests(schema, pa.table({"c": array}).to_batches(max_chunksize=size))

    assert digest(left, 1) == digest(left, 4)
    assert (digest(left, 2) == digest(right, 3)) == (
        pa.array(left, kind).equals(pa.array(right, kind)) and repr(left) == repr(right)
    )


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (["ab", ""], ["a", "b"]),
        ([b"a", None], [b"a", b""]),
        ([["a"], ["b"]], [["a", "b"], []]),
        ([["ab"]], [["a", "b"]]),
        ([["a"], [None]], [["a"], None]),
        ([0, None], [0, 0]),
        ([0.0], [-0.0]),
    ],
)
def test_values_that_run_together_have_different_digests(left, right):
    table = pa.table({"left": left, "right": right})
    schema = pa.schema([("c", table["left"].type)])
    digests = [_column_digests(schema, table.select([side]).rename_columns(["c"]).to_batches()) for side in ("left", "right")]
    assert digests[0] != digests[1]
