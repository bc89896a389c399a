"""Sizes and training settings of the recommenders, apart from the models: reading a recipe must not import transformers (10 s).

`[trainer]` of a recipe becomes one of two classes by its `kind`: `DecoderConfig` (kinds ``decoder`` and ``sasrec``) or
`GenerativeConfig` (kind ``tiger``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidlake.errors import RecipeError

__all__ = ["Decode", "DecoderConfig", "GenerativeConfig", "Head", "Input"]

Input = Literal["codes", "fused", "item"]
Head = Literal["item", "depth"]
Decode = Literal["item", "depth", "rerank"]


_HEADS_OF: dict[str, set[str]] = {"item": {"item"}, "depth": {"depth"}, "rerank": {"item", "depth"}}
_WHAT_DECODES = {"item": "that head", "depth": "that head", "rerank": "both heads"}


def _require_at_least_one(config: object, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(config, name) < 1:
            msg = f"{name} must be at least 1, got {getattr(config, name)}"
            raise ValueError(msg)


def _require_shares(config: object, names: tuple[str, ...]) -> None:
    for name in names:
        if not 0.0 <= getattr(config, name) < 1.0:
            msg = f"{name} must be at least 0 and below 1, got {getattr(config, name)}"
            raise ValueError(msg)


def _require_heads_fit(d_model: int, num_heads: int) -> None:
    if d_model % num_heads:
        msg = f"d_model must be a multiple of num_heads, got {d_model} and {num_heads}"
        raise ValueError(msg)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderConfig:
    """A packed causal decoder over items (`sidlake.generative.models.packed_decoder`) and how it is trained.

    Attributes:
        kind: ``decoder``; or ``sasrec``, the same body over item numbers alone, which needs inputs and heads that say so.
        inputs: what an item's vector is the sum of: the embeddings of its ``codes``, its ``fused`` vector through a projection, a
            learned vector of its own (``item``). Without codes or fused a new item has no vector.
        heads: what is learned: ``item``, a softmax over item vectors; ``depth``, the next item's codes one after the other.
        decode: what recommends: ``item`` scores all items exactly; ``depth`` searches the prefix trie by beams; ``rerank`` orders
            the `num_beams` items that such a search finds by their item scores, which costs the same for any number of items.
        repeats: learn how likely an item is taken again, by how long ago and how often the user had it.
        d_ff: width of the feed-forward layers; 0 is four times `d_model`.
        max_history: positions of a packed row, and the newest items that a recommendation reads.
        batch_positions: positions of a training step.
        num_negatives: items drawn per step for the softmax; 0 is all items that training knows.
        temperature: of cosines between state and item vector; 0 is their product instead.
        depth_weight: weight of the depth head's loss beside the item head's.
        exclude_seen: leave what a user had out of the recommendations that are written; figures are always given both ways.
        validation_users: users judged after every epoch, spread evenly; all where there are fewer.
        d_model: width of the model; a multiple of `num_heads`.
        num_heads: attention heads of a layer.
        num_warmup_steps: training steps in which the learning rate rises from 0.
        learning_rate: of AdamW at the end of the warm-up.
        weight_decay: of AdamW.
        num_beams: prefixes that a search keeps at each level.
        seed: decides the start, the order of batches and what is left to chance.
        num_layers: layers of the decoder.
        dropout: share of values dropped on item vectors and within the layers while training.
        fused_dropout: the same on the fused vector before its projection.
        max_epochs: passes over the training rows at most; the best epoch is kept.
        patience: epochs without a better validation NDCG@10 after which training stops.
    """

    kind: Literal["decoder", "sasrec"] = "decoder"
    inputs: tuple[Input, ...] = ("codes", "fused", "item")
    heads: tuple[Head, ...] = ("item", "depth")
    decode: Decode = "item"
    repeats: bool = True
    d_model: int = 256
    d_ff: int = 0
    num_layers: int = 2
    num_heads: int = 4
    dropout: float = 0.5
    fused_dropout: float = 0.5
    max_history: int = 64
    batch_positions: int = 2048
    num_negatives: int = 0
    temperature: float = 0.0
    depth_weight: float = 0.1
    max_epochs: int = 100
    patience: int = 10
    validation_users: int = 4096
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    num_warmup_steps: int = 100
    num_beams: int = 50
    exclude_seen: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _require_at_least_one(self, ("d_model", "num_layers", "num_heads", "max_history", "batch_positions", "num_beams"))
        _require_at_least_one(self, ("max_epochs", "patience", "validation_users"))
        _require_shares(self, ("dropout", "fused_dropout"))
        _require_heads_fit(self.d_model, self.num_heads)
        for name in ("d_ff", "num_negatives", "temperature", "depth_weight", "weight_decay", "num_warmup_steps", "seed"):
            if getattr(self, name) < 0:
                msg = f"{name} must be at least 0, got {getattr(self, name)}"
                raise ValueError(msg)
        if self.learning_rate <= 0.0:
            msg = f"learning_rate must be above 0, got {self.learning_rate}"
            raise ValueError(msg)
        self._require_sense()

    def _require_sense(self) -> None:
        """Raise `RecipeError` for parts that do not go together."""
        broken = next((why for why in self._contradictions() if why), None)
        if broken:
            msg = f"[trainer] kind = {self.kind!r}: {broken}"
            raise RecipeError(msg, kind=self.kind, inputs=self.inputs, heads=self.heads, decode=self.decode)

    def _contradictions(self) -> tuple[str | None, ...]:
        return (
            None if self.inputs else "inputs is empty; name at least one of codes, fused, item",
            None if self.heads else "heads is empty; name at least one of item, depth",
            _repeated("inputs", self.inputs),
            _repeated("heads", self.heads),
            f"decode = {self.decode!r} needs {_WHAT_DECODES[self.decode]}; add it to heads {list(self.heads)}"
            if not _HEADS_OF[self.decode] <= set(self.heads)
            else None,
            "the depth head spells codes, which inputs leave out; add codes to inputs or take depth out of heads"
            if "depth" in self.heads and "codes" not in self.inputs
            else None,
            f"repeats works on scores of all items, decode = {self.decode!r} has none; set repeats = false"
            if self.repeats and self.decode != "item"
            else None,
            'SASRec knows items by number: it needs inputs = ["item"] and heads = ["item"]'
            if self.kind == "sasrec" and (self.inputs, self.heads) != (("item",), ("item",))
            else None,
        )


def _repeated(name: str, values: tuple[str, ...]) -> str | None:
    return None if len(set(values)) == len(values) else f"{name} names one thing twice: {list(values)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerativeConfig:
    """Sizes of TIGER's model (`sidlake.generative.models.tiger`) and how it is trained.

    A step costs about 2 * parameters * batch_size * max_history multiplications forward, and twice that backward.

    Attributes:
        kind: ``tiger``, an encoder-decoder that spells codes.
        d_model: width of the model; a multiple of `num_heads`.
        num_heads: attention heads of a layer.
        num_warmup_steps: training steps in which the learning rate rises from 0.
        learning_rate: of AdamW at the end of the warm-up.
        weight_decay: of AdamW.
        num_beams: prefixes that a search keeps at each level.
        seed: decides the start, the order of batches and what is left to chance.
        d_ff: width of the feed-forward layers.
        num_layers: layers of the encoder, and of the decoder.
        dropout: share of values dropped while training.
        max_history: newest items that are read.
        batch_size: histories of a training step.
        num_steps: training steps; fixed, so the result depends on the data, the seed and the machine.
        label_smoothing: share of the target's probability that is spread over all codes.
        exclude_seen: leave what a user had out of the recommendations that are written.
    """

    kind: Literal["tiger"] = "tiger"
    d_model: int = 96
    d_ff: int = 256
    num_layers: int = 1
    num_heads: int = 4
    dropout: float = 0.0  # less than one epoch is seen by default; drawing the masks took half of a step on a CPU
    max_history: int = 5
    batch_size: int = 256
    num_steps: int = 2400
    num_warmup_steps: int = 100
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    num_beams: int = 20
    exclude_seen: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _require_at_least_one(
            self, ("d_model", "d_ff", "num_layers", "num_heads", "max_history", "batch_size", "num_steps", "num_beams")
        )
        _require_heads_fit(self.d_model, self.num_heads)
        _require_shares(self, ("dropout", "label_smoothing"))
        if self.learning_rate <= 0.0 or self.weight_decay < 0.0 or self.num_warmup_steps < 0 or self.seed < 0:
            msg = f"learning_rate must be above 0, and weight_decay, num_warmup_steps and seed at least 0, got {self}"
            raise ValueError(msg)
