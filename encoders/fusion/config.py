"""What a fusion is asked for: the modalities with their weights, and the way in which they become one vector.

Kept apart from `fusion` so that the modules that fit one kind can name its settings without importing the artifact.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from operator import index
from typing import Any, Literal, NamedTuple

__all__ = ["BLOCK_KINDS", "PAIR_KINDS", "FuseConfig", "FusionConfig", "FusionKind", "ModalityWeight"]

FusionKind = Literal["concat", "plain", "rank", "pca", "cca", "align", "contrastive", "neighbours"]

BLOCK_KINDS: frozenset[FusionKind] = frozenset({"concat", "plain", "rank"})
"""Kinds that give each modality dimensions of its own; the others add modalities up in one space."""

PAIR_KINDS: frozenset[FusionKind] = frozenset({"contrastive", "neighbours"})
"""Kinds that learn from items taken together; ``neighbours`` does without where there are none."""


class ModalityWeight(NamedTuple):
    """One modality's part in the fused vector: its name, its weight and how many PCA dimensions it keeps."""

    modality: str
    weight: float
    dim: int


def _whole(what: str, value: Any) -> int:  # noqa: ANN401  whatever the caller gave
    """Return `value` as Python's int; `ValueError` for a bool or anything that is no whole number, also not 4.0."""
    try:
        number = index(value)  # its TypeError is the check
    except TypeError:
        raise ValueError(f"{what} must be a whole number, got {value!r}") from None
    if isinstance(value, bool):
        raise ValueError(f"{what} must be a whole number, got {value!r}")
    return number


@dataclass(frozen=True, kw_only=True, slots=True)
class FuseConfig:
    """How modalities become one vector; see `fusion` for the kinds. A setting that the kind does not have must stay as it is.

    Attributes:
        unit: scale every fused row to length one, as ``neighbours`` always does; a row of zeros stays zero.
        dim: of the result, for ``pca``, ``cca``, ``contrastive`` and ``neighbours``; by default the largest
            (``cca``: the smallest) of the modalities' dims.
        target: the modality into whose space ``align`` turns the others; by default the first.
        ridge: share of a modality's mean variance that ``cca`` adds to each of its directions.
        num_steps, batch_size, learning_rate, temperature: the training of ``contrastive``.
        hidden, num_epochs: units of the network of ``neighbours``, and its passes over the items.
        num_neighbours: that its teacher names for each item.
        together_weight, popularity_weight: what being taken together, and being taken often, add to the teacher's cosines.
        seed: of ``contrastive`` and ``neighbours``.
        kind: ``concat`` joins the weighted modalities; ``plain`` joins them as they are; ``rank``, ``pca``, ``cca``, ``align``,
            ``contrastive`` and ``neighbours`` relate them, see `fusion`.
    """

    kind: FusionKind = "concat"
    unit: bool = False
    dim: int | None = None
    target: str | None = None
    ridge: float = 1e-3
    num_steps: int = 600
    batch_size: int = 512
    learning_rate: float = 3e-3
    temperature: float = 0.2
    hidden: int = 1024
    num_epochs: int = 8
    num_neighbours: int = 100
    together_weight: float = 0.2
    popularity_weight: float = 0.04
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _SETTINGS:
            raise ValueError(f"fuse.kind must be one of {', '.join(_SETTINGS)}, got {self.kind!r}")
        own = {"kind", "unit"} | _SETTINGS[self.kind]
        for field in fields(self):
            if field.name not in own and getattr(self, field.name) != field.default:
                owners = ", ".join(kind for kind, settings in _SETTINGS.items() if field.name in settings)
                raise ValueError(f"fuse.{field.name} is no setting of kind {self.kind!r}; it belongs to {owners}")
        for name in ("dim", "num_steps", "batch_size", "hidden", "num_epochs", "num_neighbours", "seed"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _whole(f"fuse.{name}", value))
        for name in ("dim", "num_steps", "batch_size", "learning_rate", "temperature", "hidden", "num_epochs", "num_neighbours"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"fuse.{name} must be above 0 and finite, got {value}")
        if self.batch_size < 2:
            raise ValueError(
                f"fuse.batch_size must be at least 2, got {self.batch_size}: the other pairs of a batch are the negatives"
            )
        for name in ("ridge", "seed", "together_weight", "popularity_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"fuse.{name} must not be negative, and finite, got {value}")


_SETTINGS: dict[FusionKind, frozenset[str]] = {
    "concat": frozenset(),
    "plain": frozenset(),
    "rank": frozenset(),
    "pca": frozenset({"dim"}),
    "cca": frozenset({"dim", "ridge"}),
    "align": frozenset({"target"}),
    "contrastive": frozenset({"dim", "num_steps", "batch_size", "learning_rate", "temperature", "seed"}),
    "neighbours": frozenset({"dim", "hidden", "num_epochs", "num_neighbours", "together_weight", "popularity_weight", "seed"}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionConfig:
    """The modalities in order; `whiten` gives every kept direction of a modality unit variance before the scaling."""

    weights: tuple[ModalityWeight | tuple[str, float, int], ...]
    whiten: bool = False
    fuse: FuseConfig = FuseConfig()

    def __post_init__(self) -> None:
        entries = tuple(ModalityWeight(*entry) for entry in self.weights)
        whole = tuple(entry._replace(dim=_whole(f"the dim of {entry.modality!r}", entry.dim)) for entry in entries)
        object.__setattr__(self, "weights", whole)
        names = [entry.modality for entry in self.blocks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"weights must name each modality once and at least one, got {names}")
        for name, weight, dim in self.blocks:
            if not (math.isfinite(weight) and weight > 0):
                raise ValueError(f"the weight of {name!r} must be above 0 and finite, got {weight}: leave the modality out instead")
            if dim < 1:
                raise ValueError(f"the dim of {name!r} must be at least 1, got {dim}")
        self._check_kind(names)

    def _check_kind(self, names: list[str]) -> None:
        kind, most = self.fuse.kind, self._most_dims()
        if kind == "plain" and (self.whiten or any(entry.weight != 1.0 for entry in self.blocks)):
            raise ValueError("kind 'plain' takes vectors as they are: without weights or whiten; take kind 'concat' for them")
        if kind in ("cca", "align") and len(names) < 2:
            raise ValueError(f"kind {kind!r} relates modalities to each other and needs at least 2, got {names}")
        if self.fuse.target is not None and self.fuse.target not in names:
            raise ValueError(f"fuse.target must be one of {names}, got {self.fuse.target!r}")
        if self.fuse.dim is not None and self.fuse.dim > most:
            raise ValueError(f"fuse.dim of kind {kind!r} must be at most {most} with these modalities' dims, got {self.fuse.dim}")

    @property
    def blocks(self) -> tuple[ModalityWeight, ...]:
        """Return the entries as `ModalityWeight`, in order."""
        return tuple(ModalityWeight(*entry) for entry in self.weights)

    @property
    def shared_dim(self) -> int:
        """The dim of the space in which a kind that is not in `BLOCK_KINDS` adds modalities up."""
        dims = {entry.modality: entry.dim for entry in self.blocks}
        if self.fuse.kind == "align":
            return dims[self.target]
        return self.fuse.dim or (min(dims.values()) if self.fuse.kind == "cca" else max(dims.values()))

    @property
    def target(self) -> str:
        """The modality into whose space ``align`` turns the others."""
        return self.fuse.target or self.blocks[0].modality

    def described(self) -> dict[str, Any]:
        """Return the settings as JSON values, without `fuse` where it is the default: those of before there were kinds."""
        values = asdict(self)
        if self.fuse == FuseConfig():
            del values["fuse"]
        return values

    def _most_dims(self) -> int:
        dims = [entry.dim for entry in self.blocks]
        return min(dims) if self.fuse.kind == "cca" else sum(dims)
