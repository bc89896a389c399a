"""Upkeep, once a week: the current release in few files, without what it does not need, and the rest freed.

Refreshes add small files and runs leave rows behind. Compaction makes new versions of tables with the same rows, so it is a release
like any other: the same content hash, verified again from storage, that readers move to when they like. What was up to date before
is so after it: digests that held of the base are made of the new versions. Then `vacuum` frees what no live release needs.
A day's publication believes what it knows of files that have not changed (`hashing.verified_files`); the upkeep reads them all, so
that a bit which a disk has turned is found within the week.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidlake.errors import LawBroken, StorageError
from sidlake.pipelines.generation import refuse_changed_generation
from sidlake.pipelines.release import release
from sidlake.pipelines.run import RunContext, StepReport, digest
from sidlake.pipelines.run_state import forget_state
from sidlake.pipelines.steps import STEPS, refuse_stale
from sidlake.warehouse.content import content_hash
from sidlake.warehouse.file_digests import check_files
from sidlake.warehouse.keep.retention import Retention
from sidlake.warehouse.keep.vacuum import Vacuum, vacuum

__all__ = ["Maintained", "maintain"]

_MANY = 8
"""Files of a table from which on it is written anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Maintained:
    """What the upkeep did: tables written anew with their numbers of files before and after, what was published, what was freed."""

    compacted: dict[str, tuple[int, int]]
    release: StepReport
    freed: Vacuum


def maintain(ctx: RunContext, *, retention: Retention | None = None) -> Maintained:
    """Compact the current release's tables, publish them where any was written, and vacuum.

    Raises:
        NotFoundError: nothing has been released. HoldError: after a rollback. RetrainNeeded, StaleStepError: the recipe is not the
            one that the release was made with; run a retrain or refresh first. LawBroken: the compacted tables have other content.
        StorageError: files of the release are not what was published.
    """
    _ = ctx.generation
    ctx.refuse_held()
    refuse_changed_generation(ctx)
    made = [step for step in STEPS.values() if not step.after_release and step.name != "release"]
    current = [step for step in made if ctx.base_state.steps.get(step.name) == digest(step, ctx, ctx.base_state)]
    ctx.reread = True
    ctx.override = ctx.override or (ctx.base.override if ctx.base else None)
    try:
        with ctx.warehouse.writing(ctx.run_id):
            if ctx.base is not None:
                check_files(ctx.warehouse, ctx.base.tables)
            compacted = _compacted(ctx)
            _refuse_other_content(ctx, compacted)
            for step in current:
                ctx.state.steps[step.name] = digest(step, ctx)
            refuse_stale(ctx)
            published = release(ctx)
    finally:
        ctx.warehouse.discard_staging(ctx.run_id)
        forget_state(ctx.warehouse, ctx.run_id)
    return Maintained(compacted=compacted, release=published, freed=vacuum(ctx.warehouse, retention))


def _compacted(ctx: RunContext) -> dict[str, tuple[int, int]]:
    """Put compacted versions of tables with many files in force, and return their numbers of files before and after."""
    found = {}
    for table, version in sorted(ctx.tables.items()):
        before = len(ctx.warehouse.files(table, version=version))
        if before >= _MANY:
            ctx.tables[table] = ctx.warehouse.compact(table, version, run_id=ctx.run_id)
            found[table] = (before, len(ctx.warehouse.files(table, version=ctx.tables[table])))
            if found[table][1] == before:  # a file per day is as few as there can be
                ctx.tables[table] = version
                del found[table]
    return found


def _refuse_other_content(ctx: RunContext, compacted: Mapping[str, object]) -> None:
    if ctx.base is None:
        return
    published = ctx.base.content_hash
    content = content_hash(ctx.warehouse, ctx.tables, ctx.generation, like=published)
    if content != published and compacted:
        msg = f"compacting {', '.join(compacted)} made content {content} of {published}: nothing was published"
        raise LawBroken(msg, rule="compaction keeps the rows", tables=sorted(compacted))
    if content != published:
        msg = f"the files of {ctx.base.release_id} have content hash {content}, published was {published}; restore them"
        raise StorageError(msg, release_id=ctx.base.release_id)
