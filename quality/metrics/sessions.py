"""Sessions to score by: what a user had, and the item that came next, as row numbers of a gallery of items.

Building sessions from interactions (time split, longest history) belongs to the pipelines; here is only the shape they take.
−1 stands for an item that is not in the gallery.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Sessions"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sessions:
    """S sessions in CSR form: session s holds ``items_flat[offsets[s]:offsets[s + 1]]`` and asks for ``targets[s]``; all int64.

    `offsets` has S + 1 entries, starts at 0, never falls, and ends at ``len(items_flat)``. Entries are gallery rows or −1 (not in
    the gallery). Raises ValueError otherwise.

    >>> sessions = Sessions(items_flat=np.array([4, 2, -1]), offsets=np.array([0, 2, 3]), targets=np.array([7, 1]))
    >>> sessions.num_sessions, sessions.num_scorable
    (2, 1)
    """

    items_flat: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, array in (("items_flat", self.items_flat), ("offsets", self.offsets), ("targets", self.targets)):
            if array.ndim != 1 or array.dtype != np.int64:
                msg = f"{name} must be a one-dimensional int64 array, got {array.dtype} of shape {array.shape}"
                raise ValueError(msg)
        if len(self.offsets) != len(self.targets) + 1:
            msg = f"offsets must have one entry more than targets ({len(self.targets)}), got {len(self.offsets)}"
            raise ValueError(msg)
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.items_flat) or np.any(np.diff(self.offsets) < 0):
            msg = f"offsets must rise from 0 to {len(self.items_flat)} without falling, got {self.offsets[0]} to {self.offsets[-1]}"
            raise ValueError(msg)
        lowest = min(self.items_flat.min(initial=0), self.targets.min(initial=0))
        if lowest < -1:
            msg = f"items and targets must be gallery rows, or -1 for an item outside the gallery, got {lowest}"
            raise ValueError(msg)

    @property
    def num_sessions(self) -> int:
        """Number of sessions, scorable or not."""
        return len(self.targets)

    @property
    def session_of_item(self) -> npt.NDArray[np.int64]:
        """Session number of each entry of `items_flat`."""
        return np.repeat(np.arange(self.num_sessions, dtype=np.int64), np.diff(self.offsets))

    @property
    def num_scorable(self) -> int:
        """Number of sessions with at least one item in the gallery and their target in it."""
        known = self.session_of_item[self.items_flat >= 0]
        return len(np.unique(known[self.targets[known] >= 0]))

    def last_items(self, num: int) -> Sessions:
        """Return the sessions with the last `num` entries of each, so that long ones have no more chances; ValueError if num < 1.

        >>> sessions = Sessions(items_flat=np.array([4, 2, 6]), offsets=np.array([0, 2, 3]), targets=np.array([7, 1]))
        >>> sessions.last_items(1).items_flat
        array([2, 6])
        """
        if num < 1:
            msg = f"num must be >= 1 to keep an item of each session, got {num}"
            raise ValueError(msg)
        from_end = self.offsets[1:][self.session_of_item] - np.arange(len(self.items_flat))
        lengths = np.minimum(np.diff(self.offsets), num)
        return Sessions(
            items_flat=self.items_flat[from_end <= num],
            offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
            targets=self.targets,
        )
