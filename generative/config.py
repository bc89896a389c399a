"""Sizes and training settings of the recommender, apart from the model: reading a recipe must not import transformers (10 s)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GenerativeConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerativeConfig:
    """Sizes of the model and how it is trained; `num_steps` is fixed, so the result depends on the data, the seed and the machine.

    A step costs about 2 * parameters * batch_size * max_history multiplications forward, and twice that backward.
    """

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
        positive = ("d_model", "d_ff", "num_layers", "num_heads", "max_history", "batch_size", "num_steps", "num_beams")
        for name in positive:
            if getattr(self, name) < 1:
                msg = f"{name} must be at least 1, got {getattr(self, name)}"
                raise ValueError(msg)
        if self.d_model % self.num_heads:
            msg = f"d_model must be a multiple of num_heads, got {self.d_model} and {self.num_heads}"
            raise ValueError(msg)
        for name in ("dropout", "label_smoothing"):
            if not 0.0 <= getattr(self, name) < 1.0:
                msg = f"{name} must be at least 0 and below 1, got {getattr(self, name)}"
                raise ValueError(msg)
        if self.learning_rate <= 0.0 or self.weight_decay < 0.0 or self.num_warmup_steps < 0 or self.seed < 0:
            msg = f"learning_rate must be above 0, and weight_decay, num_warmup_steps and seed at least 0, got {self}"
            raise ValueError(msg)
