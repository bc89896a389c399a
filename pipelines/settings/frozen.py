"""What of a recipe only a retrain may change: the settings that a generation is fitted with."""

from __future__ import annotations

__all__ = ["FREE", "FROZEN", "only_by_retrain"]

FROZEN = ("encoders.fusion", "encoders.fuse", "encoders.whiten", "encoders.behaviour", "tokenizer", "split.pair_window")
"""What a generation is fitted with; `generation.refuse_changed_generation` holds refreshes to it."""

FREE = ("tokenizer.device", "tokenizer.align", "tokenizer.warm_start")
"""Of those, what says nothing about the codebooks of a generation: where they were computed, and how its retrain began."""

_IN_ENCODER_IDS = tuple(f"encoders.text.{name}" for name in ("model", "max_length", "precision", "device", "kernel"))
_IN_ENCODER_IDS += ("encoders.image.model",)
"""What the encoders' ids are made of; `embed.known.same_as_generation` holds refreshes to these."""


def only_by_retrain(key: str) -> bool:
    """Return whether a refresh is refused where the value at the dotted `key` is not that of its generation.

    >>> [only_by_retrain(key) for key in ("tokenizer.widths", "tokenizer.align", "encoders.text.batch_size")]
    [True, False, False]
    """
    return _is_in(key, (*FROZEN, *_IN_ENCODER_IDS)) and not _is_in(key, FREE)


def _is_in(key: str, paths: tuple[str, ...]) -> bool:
    return any(key == path or key.startswith(f"{path}.") for path in paths)
