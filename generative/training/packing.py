"""Rows of equal length that hold several histories one after the other, so that no position is padding but a row's end.

A history is an input but for its last item, and every position's target is the item after it. A history longer than a row is cut
into pieces from its newest end: all but the oldest piece are whole rows. Pieces are placed first-fit, longest first, which fills
97 % of Beauty's rows of 64. A position attends to earlier ones of its own piece only (`segment_RW`).

Shape suffixes: R rows, W positions of a row, P pieces, B users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidlake.generative.sequences import Histories

__all__ = ["PackedBatch", "pack_histories", "pack_pieces", "pieces_of"]

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PackedBatch:
    """Packed histories, int64 of shape (R, W) each.

    `items_RW` are item indices (0 where nothing is), `segment_RW` the number of the piece (-1 where nothing is), `place_RW` the
    place within the piece (0 is its oldest item), `target_RW` the next item (-1: no target). `until_RW` is the position in the row
    where the same item stands again in the piece (W: never), `count_RW` how often the piece held the item up to here.
    `last_B2` gives row and position of each piece's newest item, in the order of the pieces given.
    """

    items_RW: Int64s
    segment_RW: Int64s
    place_RW: Int64s
    target_RW: Int64s
    until_RW: Int64s
    count_RW: Int64s
    last_B2: Int64s

    @property
    def num_targets(self) -> int:
        """Return the number of positions that have a target."""
        return int((self.target_RW >= 0).sum())


def pieces_of(train: Histories, *, width: int) -> Int64s:
    """Return start and end, (P, 2) int64 into `train.items_S`, of the pieces of at most `width` inputs; at `end` is a target.

    >>> import pyarrow as pa
    >>> users = Histories(pa.array(["u"]), np.arange(8), np.array([0]), np.array([8]), np.array([-1]))
    >>> pieces_of(users, width=3).tolist()
    [[0, 1], [1, 4], [4, 7]]
    """
    inputs_U = np.maximum(train.ends_U - train.starts_U - 1, 0)
    pieces_U = -(-inputs_U // width)
    user_P = np.repeat(np.arange(len(train)), pieces_U)
    from_end_P = np.repeat(np.cumsum(pieces_U), pieces_U) - 1 - np.arange(len(user_P))
    ends_P = train.ends_U[user_P] - 1 - from_end_P * width
    return np.stack([np.maximum(ends_P - width, train.starts_U[user_P]), ends_P], axis=1)


def pack_pieces(items_S: Int64s, pieces_P2: Int64s, *, width: int) -> PackedBatch:
    """Return the pieces ``items_S[start:end]`` packed, each position's target being the item after it."""
    return _packed(items_S, pieces_P2, width, with_targets=True)


def pack_histories(users: Histories, *, width: int) -> PackedBatch:
    """Return the last `width` items of every user packed, without targets; a user needs at least one item."""
    if (users.ends_U <= users.starts_U).any():
        empty = int((users.ends_U <= users.starts_U).sum())
        msg = f"{empty} users have an empty history; a model that reads items needs one at least"
        raise ValueError(msg)
    pieces_P2 = np.stack([np.maximum(users.starts_U, users.ends_U - width), users.ends_U], axis=1)
    return _packed(users.items_S, pieces_P2, width, with_targets=False)


def _packed(items_S: Int64s, pieces_P2: Int64s, width: int, *, with_targets: bool) -> PackedBatch:
    lengths_P = pieces_P2[:, 1] - pieces_P2[:, 0]
    row_P, offset_P, num_rows = _first_fit(lengths_P, width)
    piece_T = np.repeat(np.arange(len(pieces_P2)), lengths_P)
    place_T = np.arange(len(piece_T)) - np.repeat(np.cumsum(lengths_P) - lengths_P, lengths_P)
    source_T = pieces_P2[piece_T, 0] + place_T
    at_T = row_P[piece_T] * width + offset_P[piece_T] + place_T
    count_T, until_T = _repeats(items_S[source_T], piece_T)
    until_T = np.where(until_T < 0, width, offset_P[piece_T] + until_T - np.repeat(np.cumsum(lengths_P) - lengths_P, lengths_P))

    def laid(values_T: Int64s, *, empty: int) -> Int64s:
        out = np.full(num_rows * width, empty, dtype=np.int64)
        out[at_T] = values_T
        return out.reshape(num_rows, width)

    target_T = items_S[source_T + 1] if with_targets else np.full(len(source_T), -1, dtype=np.int64)
    return PackedBatch(
        items_RW=laid(items_S[source_T], empty=0),
        segment_RW=laid(piece_T, empty=-1),
        place_RW=laid(place_T, empty=0),
        target_RW=laid(target_T, empty=-1),
        until_RW=laid(until_T, empty=0),
        count_RW=laid(count_T, empty=0),
        last_B2=np.stack([row_P, offset_P + lengths_P - 1], axis=1),
    )


def _first_fit(lengths_P: Int64s, width: int) -> tuple[Int64s, Int64s, int]:
    """Return row and offset of each piece, and the number of rows: the longest first, each into the first row with room."""
    row_P, offset_P = np.zeros((2, len(lengths_P)), dtype=np.int64)
    used: list[int] = []
    open_from: dict[int, int] = {}  # no row before this one has room for a piece of this length
    for piece in np.argsort(-lengths_P, kind="stable"):  # 1 µs a piece; a batch of 2,000 positions has about 400
        length = int(lengths_P[piece])
        row = open_from.get(length, 0)
        while row < len(used) and used[row] + length > width:
            row += 1
        if row == len(used):
            used.append(0)
        open_from[length] = row
        row_P[piece], offset_P[piece] = row, used[row]
        used[row] += length
    return row_P, offset_P, max(len(used), 1)


def _repeats(items_T: Int64s, piece_T: Int64s) -> tuple[Int64s, Int64s]:
    """Return how often the piece held the item up to each position (1 at first), and where it stands next (-1: never)."""
    order_T = np.lexsort((items_T, piece_T))
    same_T = np.zeros(len(items_T), dtype=bool)
    same_T[1:] = (np.diff(items_T[order_T]) == 0) & (np.diff(piece_T[order_T]) == 0)
    run_T = np.arange(len(items_T)) - np.maximum.accumulate(np.where(same_T, 0, np.arange(len(items_T))))
    count_T, next_T = np.empty((2, len(items_T)), dtype=np.int64)
    count_T[order_T] = run_T + 1
    next_sorted_T = np.full(len(items_T), -1, dtype=np.int64)
    next_sorted_T[:-1] = np.where(same_T[1:], order_T[1:], -1)
    next_T[order_T] = next_sorted_T
    return count_T, next_T
