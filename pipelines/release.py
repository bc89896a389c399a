"""The step that publishes: one release row over everything the run has in force, then the analysts' catalogue and the lookup file.

The warehouse verifies every table from storage: new files are read, of others it knows that they are the same. A broken law or a
refusing gate publishes nothing. An override lets refusing gates pass, and is part of the release; no override lets a law pass.
A run that changed nothing publishes nothing either.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from sidlake.pipelines.embed.known import keep_in_force
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.warehouse.catalog import is_current, refresh_catalog
from sidlake.warehouse.codes import verify_stored_codes
from sidlake.warehouse.identity import user_at_host
from sidlake.warehouse.outlets.lookup_file import refresh_lookup
from sidlake.warehouse.releases import ReleaseDraft, current, publish

__all__ = ["release"]


def release(ctx: RunContext) -> StepReport:
    """Publish the run's tables as a new release, or say that nothing has changed.

    Raises:
        LawBroken: what lies in storage breaks a law. ReleaseConflict: another run published meanwhile. HoldError: after a rollback.
        GateFailed: a gate refuses and the run has no override.
    """
    latest = current(ctx.warehouse)
    if latest is not None and ctx.tables == latest.tables:
        if not is_current(ctx.warehouse):  # the run that published may have died before it wrote the catalogue
            _say(ctx, refresh_catalog(ctx.warehouse))
        _say(ctx, refresh_lookup(ctx.warehouse))
        return StepReport(step="release", skipped=True, details={"release": latest.release_id})
    state, generation = ctx.state, ctx.generation  # where there is none yet, this says what to run first
    if keep_in_force(ctx):
        ctx.save()  # a step that dies after the release is out finds its tables there
    verify_stored_codes(ctx.warehouse, ctx.tables, generation=generation, encoders=state.encoders, digest=ctx.codebook_hash)
    published = publish(
        ctx.warehouse,
        ReleaseDraft(
            run_id=ctx.run_id,
            generation=generation,
            tables=ctx.tables,
            inputs=state.inputs,
            encoders=state.encoders,
            codebook_hash=ctx.codebook_hash,
            config=_portable(asdict(ctx.recipe)),
            code_version=version("sidlake"),
            metrics=state.metrics,
            steps=state.steps,
            reason=f"{ctx.job} {ctx.recipe.name}" + (f": {ctx.reason}" if ctx.reason else ""),
            published_by=user_at_host(),
            override=ctx.override,
            trained_on=state.trained_on,
        ),
        expected_parent=ctx.base.release_id if ctx.base else None,
        despite_hold=ctx.despite_hold,
        reread=ctx.reread,
    )
    state.published = published.release_id
    _say(ctx, refresh_catalog(ctx.warehouse))
    _say(ctx, refresh_lookup(ctx.warehouse))
    details = {"release": published.release_id, "generation": published.generation, "content_hash": published.content_hash}
    details |= {"override": published.override} if published.override else {}
    return StepReport(step="release", rows={"releases": 1}, details=details)


def _say(ctx: RunContext, missing: str | None) -> None:
    if missing:
        ctx.progress.say(missing)


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe without the folder it was read from and its limit of memory: they say nothing about what it makes."""
    return {key: value for key, value in config.items() if key not in ("folder", "memory")}
