"""The feature tables a trainer reads: users' sequences spelled in codes, and the prefix trie that decoding is constrained by."""

from typing import Any

import dagster as dg

from sidlake.assets.evidence import result_of
from sidlake.assets.failures import IO_RETRIES
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.resources import SidlakeResource
from sidlake.pipelines.steps import STEPS

__all__ = ["sid_trie", "user_sequences"]


@dg.asset(
    deps=["interactions", "semantic_ids"],
    group_name="features",
    owners=OWNERS,
    kinds={"polars", "deltalake"},
    code_version=CODE_VERSION,
    retry_policy=IO_RETRIES,
)
def user_sequences(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """Each user's training history and held-out targets, as items and as codes."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["sequences"])
    return result_of("user_sequences", ctx, report, seconds, table="user_sequences")


@dg.asset(
    deps=["semantic_ids"],
    group_name="features",
    owners=OWNERS,
    kinds={"numpy", "deltalake"},
    code_version=CODE_VERSION,
    retry_policy=IO_RETRIES,
)
def sid_trie(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """Prefix trie of all SIDs, as compressed sparse rows: which codes may follow which prefix."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["trie"])
    return result_of("sid_trie", ctx, report, seconds, table="sid_trie")
