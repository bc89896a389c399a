"""The generation in force: its vectors, its codebooks, and what of a recipe only a retrain may change.

A generation is frozen once published. What it was fitted with is what the first release of the generation records; a refresh under
a recipe that says otherwise would publish settings that never made what they stand beside, so it is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.encoders.behaviour import BehaviourConfig
from sidlake.encoders.fusion.config import FuseConfig
from sidlake.errors import ArtifactError, LawBroken, RetrainNeeded
from sidlake.pipelines.recipe import TokenizerConfig, plain
from sidlake.pipelines.run import RunContext
from sidlake.pipelines.settings.frozen import FREE, FROZEN
from sidlake.tokenizers.artifact import codebook_hash, load_codebook
from sidlake.tokenizers.tokenizer import Tokenizer
from sidlake.warehouse.embeddings import matrix_for
from sidlake.warehouse.releases import history

__all__ = ["cached_codebook", "fused_vectors", "load_generation", "refuse_changed_generation"]


_DEFAULTS: dict[str, Any] = {"encoders.behaviour": BehaviourConfig(), "encoders.fuse": FuseConfig(), "tokenizer": TokenizerConfig()}
"""What holds for keys of a frozen section that an older release's recipe does not know."""

_ALWAYS = ("encoders.fuse", "tokenizer")
"""Sections that every recipe has, whether it says so or not."""


def refuse_changed_generation(ctx: RunContext) -> None:
    """Raise `RetrainNeeded` where a refresh's recipe differs from what the generation was fitted with, naming keys and values."""
    if ctx.job != "refresh" or ctx.base is None:
        return
    generation = ctx.base.generation
    first = next(release for release in history(ctx.warehouse) if release.generation == generation)
    was, now = _frozen_of(first.config), _frozen_of(plain(asdict(ctx.recipe)))
    changed = {key: (was.get(key), now.get(key)) for key in sorted(was.keys() | now.keys()) if was.get(key) != now.get(key)}
    if changed:
        shown = "; ".join(f"{key} was {before!r}, the recipe says {after!r}" for key, (before, after) in changed.items())
        msg = f"generation {generation} was fitted with other settings: {shown}. A retrain may change them: sidlake run retrain"
        raise RetrainNeeded(msg, generation=generation, changed=changed)


def _frozen_of(config: Any) -> dict[str, object]:  # noqa: ANN401  the JSON of a recipe, of this version or an older one
    """Return the frozen settings that a recipe's JSON holds, by dotted key; keys of later versions have their default."""
    found: dict[str, object] = {}
    for path in FROZEN:
        value = config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if path in _DEFAULTS and (value is not None or path in _ALWAYS):
            found |= _flat(path, plain(asdict(_DEFAULTS[path])))
        found |= _flat(path, value)
    return {key: value for key, value in found.items() if value is not None and not key.startswith(FREE)}


def _flat(path: str, value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {key: one for name, entry in value.items() for key, one in _flat(f"{path}.{name}", entry).items()}


def fused_vectors(ctx: RunContext, *, without: pa.ChunkedArray | None = None) -> tuple[pa.Table, npt.NDArray[np.float32]]:
    """Return the items (item_id, content_hash) in item_id order and their fused vectors; 4 * D bytes per item."""
    items = ctx.read("items", ["item_id", "content_hash"]).sort_by("item_id")
    if without is not None:
        items = items.filter(pc.invert(pc.is_in(items.column("item_id"), value_set=without)))
    embeddings = ctx.warehouse.scan("item_embeddings", version=ctx.tables["item_embeddings"])
    x_ND, present_N = matrix_for(items, embeddings, "fused", ctx.encoder("fused"))
    if not present_N.all():
        lacking = items.filter(pa.array(~present_N)).column("item_id").to_pylist()
        msg = f"{len(lacking):,} items have no fused vector, such as {lacking[:3]}: run the step fuse again"
        raise LawBroken(msg, rule="every item has a fused vector", count=len(lacking), examples=lacking[:5])
    return items, x_ND


def load_generation(ctx: RunContext) -> Tokenizer:
    """Return the codebooks of the generation in force; `ArtifactError` where the file is not the one that the release names."""
    return cached_codebook(str(ctx.artifact("codebook.safetensors")), ctx.codebook_hash)


@lru_cache(maxsize=2)
def cached_codebook(path: str, digest: str) -> Tokenizer:
    """Return the codebook in the file `path`; `ArtifactError` unless its hash is `digest`."""
    model = load_codebook(Path(path))
    found = codebook_hash(model)
    if found != digest:
        msg = f"codebook {path}: its hash is {found}, the generation's is {digest}; restore the file from a backup or run retrain"
        raise ArtifactError(msg, path=path)
    return model
