"""SQL text over files: what is odd in a path or a name stays text."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidlake.warehouse.contracts import CONTRACTS, semantic_ids_schema
from sidlake.warehouse.sql import empty, identifier, literal, over_files


@pytest.mark.parametrize("folder", ["plain", "it's", 'a "b"', "a*b", "a?b", "[ab]", "day=2020-01-01", "ünï 漢"])
def test_exactly_the_named_files_are_read_whatever_their_directory_is_called(tmp_path, folder):
    for name, decoy in ((folder, False), ("axb", True), ("a", True)):
        (tmp_path / name).mkdir(exist_ok=True)
        pq.write_table(pa.table({"item_id": ["decoy" if decoy else "found"]}), tmp_path / name / "f.parquet")
    path = str(tmp_path / folder / "f.parquet")
    sql = over_files("items", [path], pa.schema([("item_id", pa.string())]), with_path=True)
    with duckdb.connect() as connection:
        assert connection.execute(sql).fetchall() == [("found", path)]


@pytest.mark.parametrize("schema", [*CONTRACTS.values(), semantic_ids_schema(3)])
def test_a_table_without_files_has_the_contracts_columns(schema):
    with duckdb.connect() as connection:
        found = connection.sql(empty(schema)).to_arrow_table()
    assert (found.schema.names, found.num_rows) == (schema.names, 0)


def test_quotes_do_not_end_a_literal_or_an_identifier():
    with duckdb.connect() as connection:
        text = """'; DROP TABLE x; -- " """
        row = connection.sql(f"SELECT {literal(text)} AS {identifier(text)}")
        assert (row.columns, row.fetchall()) == ([text], [(text,)])
