"""What an asset shows of its work: rows, seconds, whether it was skipped, the contract with its comments, and a preview.

Everything is read from the version that the run has in force, so a skipped step shows what it kept. Not done here: plots (`plots`).
"""

from collections.abc import Iterable, Mapping

import dagster as dg
import polars as pl
import pyarrow as pa

from sidlake.pipelines.run import RunContext, StepReport

__all__ = ["MetadataMap", "as_metadata", "column_schema", "preview", "report_metadata", "table_metadata"]

MetadataMap = dict[str, dg.MetadataValue]

_PREVIEW_ROWS = 10
_CELL = 48


def report_metadata(report: StepReport, seconds: float, table: str) -> MetadataMap:
    """Return what the step says of itself: skipped, seconds, rows written to `table`, and its details."""
    facts = {"skipped": report.skipped, "seconds": round(seconds, 3), "rows_written": report.rows.get(table, 0)}
    return as_metadata(facts | dict(report.details))


def table_metadata(ctx: RunContext, table: str, *, encoder: str | None = None) -> MetadataMap:
    """Return row count, version, contract and preview of `table` as the run has it in force; a count of 0 where it has none."""
    if table not in ctx.tables:
        return as_metadata({"dagster/row_count": 0, "absent": True})
    version = ctx.tables[table]
    rows = ctx.warehouse.scan(table, version=version)
    if encoder is None:
        count = ctx.warehouse.num_rows(table, version)
    else:
        rows = rows.filter(pl.col("encoder_id") == encoder)
        count = rows.select(pl.len()).collect().item()
    shown = {
        "dagster/row_count": dg.MetadataValue.int(count),
        "dagster/column_schema": column_schema(ctx.warehouse.schema(table, version=version)),
        "version": dg.MetadataValue.int(version),
        "preview": preview(rows.head(_PREVIEW_ROWS).collect()),
    }
    return shown


def column_schema(schema: pa.Schema) -> dg.MetadataValue:
    """Return a contract as Dagster shows it: names, types, comments, and which columns may be null."""
    columns = [
        dg.TableColumn(
            field.name,
            type=str(field.type),
            description=(field.metadata or {}).get(b"comment", b"").decode(),
            constraints=dg.TableColumnConstraints(nullable=field.nullable),
        )
        for field in schema
    ]
    return dg.MetadataValue.table_schema(dg.TableSchema(columns=columns))


def preview(rows: pl.DataFrame) -> dg.MetadataValue:
    r"""Return the rows as a Markdown table; long texts, vectors and bytes are cut, and nothing in a cell can end it.

    >>> print(preview(pl.DataFrame({"title": ["a|b"]})).value)
    | title |
    | --- |
    | a\|b |
    """
    lines = [rows.columns, ["---"] * len(rows.columns), *([_cell(value) for value in row] for row in rows.iter_rows())]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def as_metadata(facts: Mapping[str, object]) -> MetadataMap:
    """Return plain values as metadata: numbers stay numbers, which the UI draws over time; lists and dicts become JSON."""
    return {name: _value(fact) for name, fact in facts.items()}


def _value(fact: object) -> dg.MetadataValue:
    if isinstance(fact, bool):
        return dg.MetadataValue.bool(fact)
    if isinstance(fact, int):
        return dg.MetadataValue.int(fact)
    if isinstance(fact, float):
        return dg.MetadataValue.float(fact)
    if isinstance(fact, dict | list | tuple):
        return dg.MetadataValue.json(list(fact) if isinstance(fact, tuple) else fact)
    return dg.MetadataValue.text(str(fact))


def _cell(value: object) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = _list(value) if isinstance(value, Iterable) and not isinstance(value, str) else "" if value is None else str(value)
    printable = "".join(character if character.isprintable() else " " for character in text)
    cut = printable if len(printable) <= _CELL else printable[: _CELL - 1] + "…"
    return cut.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _list(values: Iterable[object]) -> str:
    return ", ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in values)
