"""What a run remembers of the files it has read, so that the next one reads new files only.

One folder per set of files, named by the digest of their content and of the recipe's settings that decide what they become: the
digests of the release that is current lead to it, so it cannot be of other files. It is a cache: it may be deleted at any time,
after a rollback it may be that of a later release, and whoever does not find it whole reads all files. The last two are kept:
the base release's and the run's.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from sidlake.pipelines.recipe import Recipe, digest_of
from sidlake.whole_files import replacing

__all__ = ["Remembered", "cache_key", "digest_of_files", "forget_others", "recall", "remember"]

_VERSION = 3
"""Raise it when what is remembered, or what a file becomes, changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remembered:
    """Digest of each file by source and name, rows read of each by target and name, and evidence and last events of all files."""

    digests: Mapping[str, Mapping[str, str]]
    rows_read: Mapping[str, Mapping[str, int]]
    evidence: pl.DataFrame
    heard: pl.DataFrame


def digest_of_files(digests: Mapping[str, str]) -> str:
    """Return one digest for the files of a source: that of its only file, or one over names and digests.

    >>> digest_of_files({"": "ab"})
    'ab'
    """
    if list(digests) == [""]:
        return digests[""]
    return hashlib.sha256("".join(f"{name}\n{digest}\n" for name, digest in sorted(digests.items())).encode()).hexdigest()


def cache_key(recipe: Recipe, digests: Mapping[str, str]) -> str:
    """Return the name under which is remembered what `recipe` made of sources with these digests, and which items it let go."""
    read = {name: asdict(source) | {"path": ""} for name, source in recipe.sources.items()}
    return digest_of(_VERSION, read, recipe.items, recipe.interactions, recipe.retirement, dict(digests))[:32]


def remember(folder: Path, key: str, what: Remembered) -> None:
    """Write `what` under `folder`, where nobody has done so."""
    target = folder / key
    if target.exists():
        return
    try:
        with replacing(target) as beside:
            beside.mkdir()
            what.evidence.write_parquet(beside / "evidence.parquet")
            what.heard.write_parquet(beside / "heard.parquet")
            about = {"digests": what.digests, "rows_read": what.rows_read}
            (beside / "files.json").write_text(json.dumps(about), encoding="utf-8")
    except OSError:
        if not target.exists():  # another run remembers the same
            raise


def recall(folder: Path, key: str) -> Remembered | None:
    """Return what is remembered under `key`, None where nothing is; what is damaged is removed, so that it is written anew."""
    entry = folder / key
    if not entry.exists():
        return None
    try:
        found = json.loads((entry / "files.json").read_text(encoding="utf-8"))
        evidence, heard = (pl.read_parquet(entry / name) for name in ("evidence.parquet", "heard.parquet"))
        return Remembered(digests=found["digests"], rows_read=found["rows_read"], evidence=evidence, heard=heard)
    except (OSError, ValueError, TypeError, KeyError, pl.exceptions.PolarsError):
        shutil.rmtree(entry)
        return None


def forget_others(folder: Path, keep: set[str]) -> None:
    """Delete all entries but those of `keep`."""
    for entry in folder.iterdir() if folder.exists() else ():
        if entry.name not in keep:
            shutil.rmtree(entry)
