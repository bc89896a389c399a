"""Training by epochs: AdamW, warm-up, cosine; the epoch best on validation is kept, and training stops when none better comes.

An epoch's order, negatives and dropout follow from (seed, epoch) alone, so a training that goes on from the state kept after an
epoch gives what one that was never stopped gives: the same weights, on the same machine and number of threads. Matrix products run
in bfloat16 where the processor has it (`precision`). Not done: gradient accumulation, several devices.

Shape suffixes: P pieces of histories, C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sidlake.errors import ContractError
from sidlake.generative.config import DecoderConfig
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.sequences import Histories
from sidlake.generative.training.objective import batch_loss
from sidlake.generative.training.packing import Int64s, PackedBatch, pack_pieces, pieces_of
from sidlake.generative.training.precision import has_fast_bfloat16
from sidlake.generative.training.resume import EpochRow, TrainingState, fingerprint, read_state, write_state

__all__ = ["Fitted", "Progress", "fit"]

Progress = Callable[[int, int], None]
"""Called after every step with the positions trained on and those of all epochs."""

Validate = Callable[[PackedDecoder], tuple[float, float]]
"""Gives Recall@10 and NDCG@10 on validation users, of a model in eval mode."""

_MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Fitted:
    """The curve, an entry an epoch, and the epoch (from 1) whose weights the model has now."""

    curve: list[EpochRow] = field(default_factory=list)
    best_epoch: int = 0


def fit(
    model: PackedDecoder,
    train: Histories,
    validate: Validate,
    *,
    keep_in: Path | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Fitted:
    """Train `model` in place and return its curve; it ends in eval mode with the weights of the best epoch.

    `keep_in` is a folder for the state after each epoch: where it holds one, training goes on from there. `stop` is asked before
    each step whether to end: an epoch that it cuts short is judged, and not kept in the folder. torch's global generators are left
    alone. Raises `ContractError` when no user has two training interactions, and what `read_state` raises where the folder holds
    another training's state.
    """
    config, device = model.config, model.known_N.device
    pieces_P2 = pieces_of(train, width=config.max_history)
    if not len(pieces_P2):
        msg = "no user has two training interactions, so there is nothing to train on; at least one pair of items is needed"
        raise ContractError(msg, pieces=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    training = fingerprint(model, train)
    state = TrainingState.start(model) if keep_in is None else read_state(keep_in, model, optimizer, training=training)
    while not _is_over(state, config):
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_epoch_seed(config.seed, len(state.curve)))
            loss, is_cut = _run_epoch(
                model, optimizer, train.items_S, pieces_P2, epoch=len(state.curve), progress=progress, stop=stop
            )
        recall, ndcg = validate(model.eval())
        state.add(EpochRow(epoch=len(state.curve) + 1, loss=loss, recall=recall, ndcg=ndcg), model)
        if say is not None:
            say(f"epoch {len(state.curve)}: loss {loss:.4f}, validation Recall@10 {recall:.4f}, NDCG@10 {ndcg:.4f}")
        if is_cut:
            break
        if keep_in is not None:
            write_state(keep_in, state, model, optimizer, training=training)
    model.load_state_dict(state.best)
    model.eval()
    return Fitted(state.curve, state.best_epoch)


def _is_over(state: TrainingState, config: DecoderConfig) -> bool:
    return len(state.curve) >= config.max_epochs or len(state.curve) - state.best_epoch >= config.patience


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _run_epoch(
    model: PackedDecoder,
    optimizer: torch.optim.Optimizer,
    items_S: Int64s,
    pieces_P2: Int64s,
    *,
    epoch: int,
    progress: Progress | None,
    stop: Callable[[], bool] | None,
) -> tuple[float, bool]:
    """Train one epoch; return its mean loss over targets, and whether `stop` cut it short."""
    config, device = model.config, model.known_N.device
    model.train()
    num_positions = int((pieces_P2[:, 1] - pieces_P2[:, 0]).sum())
    known_N = model.known_N.nonzero().squeeze(1)
    done, total = 0, torch.zeros((), device=device)
    for batch in _batches(items_S, pieces_P2, config, epoch):
        if stop is not None and done and stop():
            return float(total) / done, True
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(config, epoch * num_positions + done, num_positions)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_fast_bfloat16(device)):
            loss = batch_loss(model, batch, _candidates(known_N, config.num_negatives))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRADIENT_NORM)
        optimizer.step()
        total += loss.detach() * batch.num_targets
        done += batch.num_targets
        if progress is not None:
            progress(epoch * num_positions + done, config.max_epochs * num_positions)
    return float(total) / done, False


def _rate(config: DecoderConfig, done: int, num_positions: int) -> float:
    """Return the share of the peak learning rate: linear over the first steps, then a half cosine to 0 over all epochs."""
    warmup = config.num_warmup_steps * config.batch_positions
    if done < warmup:
        return (done + config.batch_positions) / (warmup + config.batch_positions)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done / (config.max_epochs * num_positions))))


def _batches(items_S: Int64s, pieces_P2: Int64s, config: DecoderConfig, epoch: int) -> Iterator[PackedBatch]:
    order_P = np.random.default_rng([config.seed, epoch]).permutation(len(pieces_P2))
    lengths_P = (pieces_P2[:, 1] - pieces_P2[:, 0])[order_P]
    batch_P = (np.cumsum(lengths_P) - 1) // config.batch_positions
    for pieces in np.split(order_P, np.flatnonzero(np.diff(batch_P)) + 1):
        yield pack_pieces(items_S, pieces_P2[pieces], width=config.max_history)


def _candidates(known_N: Tensor, num_negatives: int) -> Tensor:
    if not 0 < num_negatives < len(known_N):
        return known_N
    return known_N[torch.randperm(len(known_N), device=known_N.device)[:num_negatives]]
