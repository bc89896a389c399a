"""The content hash depends on the released rows and on nothing else."""

from __future__ import annotations

import hashlib
import runpy
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidlake.errors import StorageError
from sidlake.warehouse.content import content_hash
from sidlake.warehouse.contracts import conform
from sidlake.warehouse.hashing.row_sums import sum_of_rows
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


def test_a_hash_of_a_later_version_is_refused_by_name(written):
    warehouse, versions, expected = written
    assert content_hash(warehouse, versions, "g1", like=expected) == expected
    with pytest.raises(StorageError, match="'v3-00' was made in a way that is not known"):
        content_hash(warehouse, versions, "g1", like="v3-00")


def test_the_hash_is_made_of_the_tables_sums_as_its_docstring_says(written):
    warehouse, versions, expected = written
    lines = "sidlake release content 2\n"
    for table in sorted(versions):
        data = warehouse.read(table, version=versions[table])
        counted = [name for name in data.column_names if name not in ("updated_at", "assigned_at") and name[:5] != "code_"]
        found = sum_of_rows(data.select(counted).to_batches())
        lines += f"{table} {data.num_rows} {found.total:0128x}\n"
    assert expected == "v2-" + hashlib.sha256(lines.encode()).hexdigest()
