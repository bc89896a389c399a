"""The training loop: AdamW, linear warm-up, cosine decay to zero, for a number of steps fixed in advance.

The stop is a step count, never a clock, so the same data, seed, machine and number of threads give the same weights. On CUDA the
forward pass runs under bf16 autocast, the weights stay float32. Not done: early stopping, gradient accumulation, several devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from sidlake.generative.config import GenerativeConfig
from sidlake.generative.models.tiger import GenerativeModel
from sidlake.generative.sequences import SequenceReader, TrainingBatches

__all__ = ["Progress", "train"]

Progress = Callable[[int, int], None]
"""Called after every step with the steps done and the steps in all."""

_MAX_GRADIENT_NORM = 1.0


def train(
    reader: SequenceReader, config: GenerativeConfig, *, progress: Progress | None = None, device: torch.device | str = "cpu"
) -> GenerativeModel:
    """Return a model trained on the windows of `reader`, in eval mode on `device`; torch's global generators are left alone."""
    place = torch.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(config.seed)
        model = GenerativeModel(reader.catalogue.space, config).to(place)
        _fit(model, TrainingBatches(reader, batch_size=config.batch_size, seed=config.seed), progress=progress)
    return model.eval()


def learning_rate_factor(step: int, *, num_warmup_steps: int, num_steps: int) -> float:
    """Return the share of the peak learning rate at `step` (from 0): linear to 1 over the warm-up, then a half cosine down to 0.

    >>> [round(learning_rate_factor(s, num_warmup_steps=2, num_steps=6), 2) for s in range(7)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    done = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def _fit(model: GenerativeModel, batches: TrainingBatches, *, progress: Progress | None) -> None:
    config = model.config
    device = model.place_HD.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, num_warmup_steps=config.num_warmup_steps, num_steps=config.num_steps)
    )
    model.train()
    for step in range(1, config.num_steps + 1):
        batch = next(batches)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = model.loss(torch.from_numpy(batch.history_BT).to(device), torch.from_numpy(batch.target_BL).to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step, config.num_steps)
