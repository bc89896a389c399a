"""The state of a run: the table versions, encoders and digests that its release would name, as far as it has come.

It starts as what the current release says, and each step puts its own results in. It is one small JSON file in the warehouse,
folder or object store alike, written whole or not at all, so that any process on any machine can take the run up where it stopped.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from sidlake.errors import RunStateError
from sidlake.warehouse.releases import Release
from sidlake.warehouse.tables import Warehouse

__all__ = ["RunState", "forget_state", "load_state", "save_state"]


@dataclass(kw_only=True, slots=True)
class RunState:
    """What a run has in force. Every field is JSON but `now`.

    Attributes:
        now: when the run began: what all rows that it writes call now.
        base: the release it builds on; None before the first.
        tables: the version of each table that the next release will name.
        steps: digest of what each step's result was made of; what is not among them has not been made.
        generation, codebook_hash: the codebooks in force; None before the first fit.
        encoders: the encoder of each modality; ``fused`` is the fusion.
        inputs: digest, path and columns of each source, as ingested.
        trained_on: the rows that the codebooks were fitted on.
        metrics: the quality metrics of the whole SID.
        explained: share of the fused vectors that each modality explains; empty where this run fitted no fusion.
        done: steps that this run has done, or found done.
        published: the release that this run made.
    """

    now: datetime
    base: str | None = None
    tables: dict[str, int] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    generation: str | None = None
    codebook_hash: str | None = None
    encoders: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    trained_on: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    explained: dict[str, float] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    published: str | None = None

    @classmethod
    def of(cls, base: Release | None, now: datetime) -> RunState:
        """Return the state of a run that has done nothing yet: all that `base` names is in force."""
        if base is None:
            return cls(now=now)
        return cls(
            now=now,
            base=base.release_id,
            tables=dict(base.tables),
            steps=dict(base.steps),
            generation=base.generation,
            codebook_hash=base.codebook_hash,
            encoders=dict(base.encoders),
            inputs=dict(base.inputs),
            trained_on=base.trained_on,
            metrics=dict(base.metrics),
        )


def save_state(warehouse: Warehouse, run_id: str, state: RunState) -> None:
    """Write the state of `run_id` to the warehouse, in place of what it had: whole or not at all."""
    values = asdict(state) | {"now": state.now.isoformat()}
    warehouse.put(_name(run_id), json.dumps(values, indent=1, sort_keys=True).encode())


def load_state(warehouse: Warehouse, run_id: str) -> RunState | None:
    """Return the state that `run_id` left, or None where it left none; `RunStateError` for a file that is not one."""
    content = warehouse.get(_name(run_id))
    if content is None:
        return None
    try:
        values = json.loads(content)
        known = {one.name for one in fields(RunState)}
        if set(values) != known:
            odd = sorted(set(values) ^ known)
            msg = f"it lacks or does not know {', '.join(odd)}"
            raise ValueError(msg)
        return RunState(**values | {"now": datetime.fromisoformat(values["now"])})
    except (ValueError, TypeError, AttributeError) as error:
        where = f"{warehouse.url}/{_name(run_id)}"
        msg = f"the state of the run, {where}, cannot be used: {error}; start a new run, which builds on the current release"
        raise RunStateError(msg, path=where, run_id=run_id) from error


def forget_state(warehouse: Warehouse, run_id: str) -> None:
    """Delete the state of `run_id`, if there is one."""
    warehouse.remove(_name(run_id))


def _name(run_id: str) -> str:
    return f"runs/{run_id}.json"
