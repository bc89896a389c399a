"""What a training job reads from `user_sequences`: resumable batches of training windows, and the held-out targets.

A window is an item of a training history that has at least one item before it: up to `max_history` items are the history, the item
itself is the target. Every position is a window. Histories are padded on the left, so the newest item always sits in the last
place. Windows are cut from one flat array of item indices when a batch is asked for, never stored. The codes in the table must be
those of `semantic_ids`: a table of another generation is refused, not trained on.

Shape suffixes: B rows of a batch, H items of history, L levels, T = H*L tokens, U users, S items of all histories end to end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.errors import ContractError
from sidlake.generative.catalogue import ItemCatalogue

__all__ = ["Batch", "BatchState", "Histories", "SequenceReader", "TrainingBatches"]

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Padded tokens of B windows: `history_BT` int64 with PAD on the left, and the tokens `target_BL` int64 of the next item."""

    history_BT: Int64s
    target_BL: Int64s


class BatchState(TypedDict):
    """Where a stream of batches stands: the next batch is number `step` of `epoch`. The rest must match on resuming."""

    seed: int
    batch_size: int
    num_windows: int
    epoch: int
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """Histories of the users of one split, end to end, oldest item first; 8 bytes per interaction.

    `items_S` holds item indices, user u owns ``starts_U[u]:ends_U[u]``; `targets_U` is the held-out item, -1 in split train.
    """

    user_ids: pa.StringArray
    items_S: Int64s
    starts_U: Int64s
    ends_U: Int64s
    targets_U: Int64s

    def __len__(self) -> int:
        return len(self.user_ids)

    def take(self, rows: slice) -> Histories:
        """Return the users of `rows` (a slice with step 1), sharing memory."""
        return Histories(self.user_ids[rows], self.items_S, self.starts_U[rows], self.ends_U[rows], self.targets_U[rows])

    def at(self, rows_B: Int64s) -> Histories:
        """Return the users of these rows, in this order, sharing the items."""
        ids = self.user_ids.take(pa.array(rows_B))
        return Histories(ids, self.items_S, self.starts_U[rows_B], self.ends_U[rows_B], self.targets_U[rows_B])

    def flat_items(self) -> Int64s:
        """Return the items of all histories, end to end in the order of the users."""
        lengths_U = self.ends_U - self.starts_U
        before_U = np.cumsum(lengths_U) - lengths_U
        items_S: Int64s = self.items_S[np.arange(int(lengths_U.sum())) + np.repeat(self.starts_U - before_U, lengths_U)]
        return items_S

    def last(self, max_history: int) -> Int64s:
        """Return the last `max_history` items of every user, (U, max_history) int64, oldest first, padded on the left with -1."""
        return windows_before(self.items_S, starts_B=self.starts_U, ends_B=self.ends_U, max_history=max_history)

    def padded(self) -> Int64s:
        """Return the whole history of every user, (U, longest) int64, padded on the left with -1."""
        return self.last(int((self.ends_U - self.starts_U).max(initial=0)))


def windows_before(items_S: Int64s, *, starts_B: Int64s, ends_B: Int64s, max_history: int) -> Int64s:
    """Return the up to `max_history` items in front of each end, not before its start: (B, max_history) int64, -1 in front.

    >>> windows_before(np.array([7, 8, 9]), starts_B=np.array([0, 1]), ends_B=np.array([3, 2]), max_history=2).tolist()
    [[8, 9], [-1, 8]]
    """
    positions_BH = ends_B[:, None] + np.arange(-max_history, 0)
    inside_BH = positions_BH >= starts_B[:, None]
    if not len(items_S):
        return np.full(positions_BH.shape, -1, dtype=np.int64)
    return np.where(inside_BH, items_S[np.maximum(positions_BH, 0)], -1)


class SequenceReader:
    """Training windows and held-out users of a `user_sequences` table, as item indices of `catalogue`.

    Raises `ContractError` when a history names an unknown item, or when its codes are not those of `semantic_ids`.
    """

    def __init__(self, sequences: pa.Table, semantic_ids: pa.Table, *, widths: tuple[int, ...], max_history: int) -> None:
        if max_history < 1:
            msg = f"max_history must be at least 1, got {max_history}"
            raise ValueError(msg)
        self.catalogue = ItemCatalogue.from_table(semantic_ids, widths=widths)
        self.max_history = max_history
        self._sequences = sequences.select(["user_id", "split", "item_ids", "codes", "target"])
        self.train = self.histories("train")
        lengths_U = self.train.ends_U - self.train.starts_U
        self._window_starts = np.repeat(self.train.starts_U, np.maximum(lengths_U - 1, 0))
        is_first_S = np.zeros(len(self.train.items_S), dtype=bool)
        is_first_S[self.train.starts_U[lengths_U > 0]] = True
        self._window_ends = np.flatnonzero(~is_first_S)

    @property
    def num_windows(self) -> int:
        """Return the number of training windows: training interactions less one per user who has any."""
        return len(self._window_ends)

    def histories(self, split: str) -> Histories:
        """Return the histories of `split`: train, valid or test."""
        rows = self._sequences.filter(pc.equal(self._sequences["split"], split)).combine_chunks()
        lengths_U = pc.list_value_length(rows["item_ids"]).to_numpy().astype(np.int64)
        items_S = self.catalogue.indices(pc.list_flatten(rows["item_ids"]))
        self._require_codes_of_generation(pc.list_flatten(rows["codes"]).to_numpy(), items_S)
        ends_U = np.cumsum(lengths_U)
        targets_U = np.full(len(rows), -1, dtype=np.int64) if split == "train" else self.catalogue.indices(rows["target"])
        user_ids = rows["user_id"].cast(pa.string()).combine_chunks()
        return Histories(user_ids, items_S, ends_U - lengths_U, ends_U, targets_U)

    def windows(self, numbers_B: Int64s) -> Batch:
        """Return the windows of these numbers, each in [0, num_windows)."""
        ends_B = self._window_ends[numbers_B]
        items_BH = windows_before(
            self.train.items_S, starts_B=self._window_starts[numbers_B], ends_B=ends_B, max_history=self.max_history
        )
        return Batch(self.catalogue.history_tokens(items_BH), self.catalogue.tokens_NL[self.train.items_S[ends_B]])

    def _require_codes_of_generation(self, codes_X: npt.NDArray[np.integer], items_S: Int64s) -> None:
        space = self.catalogue.space
        expected_SL = self.catalogue.tokens_NL[items_S] - np.array(space.offsets)
        if codes_X.size != expected_SL.size or not np.array_equal(codes_X.reshape(expected_SL.shape), expected_SL):
            msg = "the codes in user_sequences are not those of semantic_ids, so the generations differ; read both from one release"
            raise ContractError(msg, codes=int(codes_X.size), expected=int(expected_SL.size))


class TrainingBatches:
    """An endless stream of training batches: a new permutation of all windows per epoch, the incomplete last batch left out.

    The permutation of an epoch depends on (seed, epoch) only, so a stream restored by `load_state_dict` gives the same batches.
    Memory: 8 bytes per window.
    """

    def __init__(self, reader: SequenceReader, *, batch_size: int, seed: int) -> None:
        if reader.num_windows == 0:
            msg = "no user has two training interactions, so there is nothing to train on; at least one window is needed"
            raise ContractError(msg, windows=0)
        if batch_size < 1:
            msg = f"batch_size must be at least 1, got {batch_size}"
            raise ValueError(msg)
        self._reader = reader
        self._batch_size = min(batch_size, reader.num_windows)
        self._seed = seed
        self._epoch = 0
        self._step = 0
        self._order = self._permutation()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if (self._step + 1) * self._batch_size > self._reader.num_windows:
            self._epoch, self._step = self._epoch + 1, 0
            self._order = self._permutation()
        start = self._step * self._batch_size
        self._step += 1
        return self._reader.windows(self._order[start : start + self._batch_size])

    def state_dict(self) -> BatchState:
        """Return where the stream stands, as JSON-ready values."""
        return BatchState(
            seed=self._seed,
            batch_size=self._batch_size,
            num_windows=self._reader.num_windows,
            epoch=self._epoch,
            step=self._step,
        )

    def load_state_dict(self, state: BatchState) -> None:
        """Continue where `state` was taken; `ValueError` if it was taken from another stream (seed, batch size or windows)."""
        own = self.state_dict()
        if (state["seed"], state["batch_size"], state["num_windows"]) != (own["seed"], own["batch_size"], own["num_windows"]):
            msg = f"the state {state} belongs to another stream than {own}; seed, batch_size and num_windows must agree"
            raise ValueError(msg)
        self._epoch, self._step = state["epoch"], state["step"]
        self._order = self._permutation()

    def _permutation(self) -> Int64s:
        return np.random.default_rng([self._seed, self._epoch]).permutation(self._reader.num_windows)
