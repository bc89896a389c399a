"""One run of the pipeline: what it reads (a release), what it has written so far, and what the release step will publish.

A run starts from the current release and collects, step by step, the table versions that the next release will name. A step
whose inputs and settings are those of the base release is skipped, and its old version stays in force. The collected state is a
small JSON file in the run's staging folder, so that steps may run in different processes (Dagster) and one can see how far a run
came. Nothing a run writes is visible to readers before the release step has published it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from sidlake.errors import NotFoundError, StorageError
from sidlake.pipelines.engines import Engine, LocalEngine
from sidlake.pipelines.progress import Progress
from sidlake.pipelines.recipe import Recipe, digest_of
from sidlake.warehouse.holds import refuse_held
from sidlake.warehouse.releases import Release, after, current, get
from sidlake.warehouse.tables import Warehouse

__all__ = ["Job", "RunContext", "StepReport", "new_run_id"]

Job = Literal["refresh", "retrain"]

STEP_VERSION = 1
"""Part of every step's digest: raise it when a step's code changes what it writes, and the next run does the step again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """What one step did: rows written per table, whether it was skipped because its inputs are unchanged, figures to show."""

    step: str
    skipped: bool = False
    rows: dict[str, int] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(kw_only=True)
class RunContext:
    """The state of one run. Created by `RunContext.open`; every change of `tables`, `steps` or `facts` is saved at once.

    Attributes:
        base: the release that was current when the run started; None before the first.
        tables: versions that the next release will name.
        steps: digest of each step's inputs, by which the next run knows what to skip.
        facts: what else the release row records: generation, encoders, inputs, codebook_hash.
        override: why gates that refuse shall not stop this run; never part of the saved state, so that a run that is taken up
            again says it again.
        despite_hold: why this run shall publish after a rollback, which holds runs; not saved either.
        reason: why the run was asked for, where there is more to say than its job; not saved either.
    """

    warehouse: Warehouse
    recipe: Recipe
    run_id: str
    job: Job
    engine: Engine
    progress: Progress
    now: datetime
    base: Release | None
    tables: dict[str, int]
    steps: dict[str, str]
    facts: dict[str, object]
    override: str | None = None
    despite_hold: str | None = None
    reason: str | None = None

    @classmethod
    def open(
        cls,
        warehouse: Warehouse,
        recipe: Recipe,
        *,
        run_id: str,
        job: Job,
        engine: Engine | None = None,
        progress: Progress | None = None,
        override: str | None = None,
        despite_hold: str | None = None,
        reason: str | None = None,
    ) -> RunContext:
        """Return the run `run_id`, as far as it came; a new run starts from the current release.

        A run that is taken up again keeps the release it started from, so that publishing over a newer one is refused.
        """
        state = _read_state(_state_path(warehouse, run_id))
        base = current(warehouse) if state is None else _base_of(warehouse, state)
        if state is None:
            facts: dict[str, Any] = (
                {"generation": base.generation, "encoders": base.encoders, "codebook_hash": base.codebook_hash} if base else {}
            )
            facts |= {"inputs": base.inputs if base else {}, "trained_on": base.trained_on if base else None}
            start = after(base).isoformat()
            state = {
                "tables": base.tables if base else {},
                "steps": base.steps if base else {},
                "facts": facts,
                "now": start,
                "base": base.release_id if base else None,
            }
        return cls(
            warehouse=warehouse,
            recipe=recipe,
            run_id=run_id,
            job=job,
            engine=engine or LocalEngine(),
            progress=progress or Progress(),
            now=datetime.fromisoformat(str(state["now"])),
            base=base,
            tables=dict(state["tables"]),
            steps=dict(state["steps"]),
            facts=dict(state["facts"]),
            override=override,
            despite_hold=despite_hold,
            reason=reason,
        )

    def refuse_held(self) -> None:
        """Raise `HoldError` where a rollback holds runs and this one was not told why it shall publish."""
        if not self.despite_hold:
            refuse_held(self.warehouse, current(self.warehouse))

    @property
    def generation(self) -> str:
        """The generation in force; `NotFoundError` before the first `retrain`."""
        generation = self.facts.get("generation")
        if not isinstance(generation, str):
            msg = "this warehouse has no codebooks yet; run the retrain job first: sidlake run retrain"
            raise NotFoundError(msg)
        return generation

    def artifact(self, name: str) -> Path:
        """Return the path of the generation's artifact `name` (codebook.safetensors, fusion.safetensors)."""
        return self.warehouse.fetched(self.warehouse.artifacts_dir / self.generation / name, str(self.facts["codebook_hash"]))

    def unchanged(self, step: str, *, inputs: Sequence[str], outputs: Sequence[str], config: object) -> bool:
        """Return whether the base release already holds this step's result; notes the step's digest either way.

        Equal versions of the input tables mean equal content, so the digest covers versions, settings and `STEP_VERSION`.
        """
        digest = self.digest(step, inputs=inputs, config=config)
        same = self.base is not None and self.base.steps.get(step) == digest and all(name in self.tables for name in outputs)
        self.steps[step] = digest
        self.save()
        return same

    def digest(self, step: str, *, inputs: Sequence[str], config: object) -> str:
        """Return what identifies the result of `step` on the tables that this run has in force."""
        return digest_of(STEP_VERSION, step, {name: self.tables.get(name) for name in inputs}, config)

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Return the version of `table` that this run has in force; `NotFoundError` names the step that makes it."""
        if table not in self.tables:
            msg = f"table {table} has no version in this run; run the steps before this one first (sidlake run retrain)"
            raise NotFoundError(msg, table=table)
        return self.warehouse.read(table, version=self.tables[table], columns=columns)

    def write(self, table: str, data: pa.Table, *, num_levels: int | None = None) -> None:
        """Replace `table` by `data` in a new version, which this run has in force from now on."""
        self.tables[table] = self.warehouse.overwrite(table, data, run_id=self.run_id, num_levels=num_levels)
        self.save()

    def append(self, table: str, data: pa.Table, *, num_levels: int | None = None) -> None:
        """Add `data` to the version of `table` that this run has in force; what others have written since is set aside first."""
        base = self.tables[table]
        self.tables[table] = self.warehouse.extend(table, base, data, run_id=self.run_id, num_levels=num_levels)
        self.save()

    def note(self, **facts: object) -> None:
        """Keep facts for the release row."""
        self.facts |= facts
        self.save()

    def save(self) -> None:
        """Write the run's state; a torn file is impossible (written beside, then renamed)."""
        path = _state_path(self.warehouse, self.run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "tables": self.tables,
            "steps": self.steps,
            "facts": self.facts,
            "now": self.now.isoformat(),
            "base": self.base.release_id if self.base else None,
        }
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")
        beside.replace(path)


Step = Callable[[RunContext], StepReport]


def new_run_id(now: datetime | None = None) -> str:
    """Return a run id that sorts by time, such as ``20261120T231500-482913``."""
    return (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S-%f")


def _base_of(warehouse: Warehouse, state: dict[str, Any]) -> Release | None:
    return get(warehouse, state["base"]) if state["base"] else None


def _state_path(warehouse: Warehouse, run_id: str) -> Path:
    return warehouse.staging(run_id) / "state.json"


def _read_state(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        msg = f"the state of the run, {path}, cannot be read: {error}; delete its folder and start a new run"
        raise StorageError(msg, path=str(path)) from error
    missing = sorted({"tables", "steps", "facts", "now", "base"} - state.keys())
    if missing:
        msg = f"the state of the run, {path}, lacks {', '.join(missing)}; delete its folder and start a new run"
        raise StorageError(msg, path=str(path), missing=missing)
    return state
