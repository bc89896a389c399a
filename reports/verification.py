"""A release, verified again from storage: its laws, its files, its content hash, its codes, and what its gates said.

The same questions that were asked before it was published, for whoever wants to know whether the answer still holds: after a disk
was restored, before a model is trained, in a cron job. Every file is read, whatever is known of it, and every question asked even
where an earlier one failed. Nothing is written, and nothing is measured again: the verdicts are those stored with the release.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidlake.errors import MemoryTooSmall, SidlakeError, StorageError
from sidlake.quality.gates import remedy_for, worst
from sidlake.warehouse.codes import verify_stored_codes
from sidlake.warehouse.content import content_hash
from sidlake.warehouse.file_digests import check_files
from sidlake.warehouse.laws import verify
from sidlake.warehouse.releases import Release, get
from sidlake.warehouse.tables import Warehouse

__all__ = ["check_release"]


def check_release(warehouse: Warehouse, release_id: str = "current") -> dict[str, Any]:
    """Return the release's verdict (pass, warn, refuse or broken), what is broken, and its metrics with verdict, reason and remedy.

    ``broken`` lists what no longer holds: error, rule, message, count and examples. A refusal that was overridden is still a
    refusal; ``override`` says why it was published. Raises `NotFoundError` for a release that is not there, `MemoryTooSmall` where
    it cannot be verified within the warehouse's limit.
    """
    release = get(warehouse, release_id)
    checks: tuple[Callable[[], object], ...] = (
        lambda: check_files(warehouse, release.tables),
        lambda: verify(warehouse, release.tables, generation=release.generation),
        lambda: _same_content(warehouse, release),
        lambda: verify_stored_codes(
            warehouse,
            release.tables,
            generation=release.generation,
            encoders=release.encoders,
            digest=release.codebook_hash,
        ),
    )
    broken = [one for check in checks for one in _failures(check)]
    metrics: list[dict[str, Any]] = []
    broken += _failures(lambda: metrics.extend(_metrics(warehouse, release)))
    return {
        "release": release.release_id,
        "generation": release.generation,
        "verdict": "broken" if broken else worst(row["verdict"] for row in metrics),
        "override": release.override,
        "broken": broken,
        "metrics": metrics,
    }


def _failures(check: Callable[[], object]) -> list[dict[str, Any]]:
    try:
        check()
    except MemoryTooSmall:  # says nothing about the release
        raise
    except SidlakeError as error:
        details: dict[str, Any] = error.details
        rules = details.get("broken") or [details]
        return [
            {
                "error": type(error).__name__,
                "rule": str(one.get("rule", "the release can be read")),
                "message": str(error),
                "count": one.get("count"),
                "examples": [str(example) for example in one.get("examples") or []],
            }
            for one in rules
        ]
    return []


def _same_content(warehouse: Warehouse, release: Release) -> None:
    digest = content_hash(warehouse, release.tables, release.generation, like=release.content_hash)
    if digest != release.content_hash:
        msg = f"the files of {release.release_id} have content hash {digest}, published was {release.content_hash}; restore them"
        raise StorageError(msg, rule="the content is what was published")


def _metrics(warehouse: Warehouse, release: Release) -> list[dict[str, Any]]:
    """Return the stored verdicts, with a remedy for those that do not pass."""
    rows = warehouse.read("sid_quality", version=release.tables["sid_quality"]).to_pylist()
    return [row | {"remedy": remedy_for(row["metric"]) if row["verdict"] in ("warn", "refuse") else None} for row in rows]
