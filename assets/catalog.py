"""The catalogue's assets: items, interactions and the rows that broke a rule, all from one reading of the sources."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from sidlake.assets.evidence import result_of
from sidlake.assets.failures import IO_RETRIES
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.resources import SidlakeResource
from sidlake.pipelines.ingest_step import ingest_sources

__all__ = ["catalog"]

_ABOUT = {
    "items": "The catalogue: one row per item, with the text that is embedded and a hash of its content.",
    "interactions": "Who did what with which item and when, partitioned by day; empty for a catalogue without events.",
    "rejected_rows": "Input rows that broke a rule of the recipe, with the rule's name and the value.",
}


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            table,
            group_name="catalog",
            description=about,
            owners=OWNERS,
            kinds={"polars", "deltalake"},
            code_version=CODE_VERSION,
        )
        for table, about in _ABOUT.items()
    ],
    retry_policy=IO_RETRIES,
)
def catalog(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> Iterator[dg.MaterializeResult[Any]]:
    """Ingest the recipe's sources; skipped while files and recipe are the same."""
    ctx, report, seconds = sidlake.run_step(context, ingest_sources)
    for table in _ABOUT:
        yield result_of(table, ctx, report, seconds, table=table)
