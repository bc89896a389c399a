"""Table versions as SQL text: `SELECT`s over exactly the Parquet files that a version names.

The text needs nothing but DuckDB (1.x or 2.x): paths are absolute literals, quoted, with glob characters made literal. Columns are
listed by name, so that a directory called ``x=1`` above the warehouse adds none.
"""

from __future__ import annotations

import pyarrow as pa

from sidlake.warehouse.contracts import PARTITIONED_BY
from sidlake.warehouse.tables import Warehouse

__all__ = ["empty", "identifier", "literal", "over_files", "sql_type", "table_at", "without_globs"]

_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.binary(): "BLOB",
}


def literal(text: str) -> str:
    """Return `text` as an SQL string literal.

    >>> literal("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return `name` as a quoted SQL identifier.

    >>> print(identifier('a"b'))
    "a""b"
    """
    return '"' + name.replace('"', '""') + '"'


def sql_type(kind: pa.DataType) -> str:
    """Return the DuckDB name of an Arrow type used in the contracts.

    >>> sql_type(pa.list_(pa.float32()))
    'FLOAT[]'
    """
    if pa.types.is_list(kind):
        return sql_type(kind.value_type) + "[]"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP WITH TIME ZONE"
    return _SQL_TYPES[kind]


def empty(schema: pa.Schema) -> str:
    """Return a `SELECT` of no rows with the columns of `schema`.

    >>> empty(pa.schema([("level", pa.int32())]))
    'SELECT CAST(NULL AS INTEGER) AS "level" WHERE false'
    """
    columns = ", ".join(f"CAST(NULL AS {sql_type(field.type)}) AS {identifier(field.name)}" for field in schema)
    return f"SELECT {columns} WHERE false"


def over_files(table: str, files: list[str], schema: pa.Schema, *, with_path: bool = False) -> str:
    """Return a `SELECT` of the columns of `schema` over `files`; `with_path` adds the column ``path``, the file of each row."""
    if not files:
        return empty(schema.append(pa.field("path", pa.string())) if with_path else schema)
    paths = ", ".join(literal(without_globs(path)) for path in files)
    hive = "hive_partitioning = true, hive_types_autocast = false" if table in PARTITIONED_BY else "hive_partitioning = false"
    columns = ", ".join(identifier(name) for name in schema.names) + (", filename AS path" if with_path else "")
    # Files of older code, or of shorter SIDs, lack columns. By name every footer is opened first: not of one file per day and more.
    by_name = ", union_by_name = true" if table not in PARTITIONED_BY else ""
    named = ", filename = true" if with_path else ""
    return f"SELECT {columns} FROM read_parquet([{paths}], {hive}{by_name}{named})"


def table_at(warehouse: Warehouse, table: str, version: int) -> str:
    """Return a `SELECT` of all rows of `table` at `version`."""
    return over_files(table, warehouse.files(table, version=version), warehouse.schema(table, version=version))


def without_globs(path: str) -> str:
    """Return `path` as a pattern that matches that path alone.

    >>> without_globs("a*b")
    'a[*]b'
    """
    return path.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")
