"""Batches without padding: texts one after the other in a fixed number of places, those of one length side by side.

Every matrix product of a model then has one shape, whatever the texts, so that a text's vector depends on nothing but the text; and
a catalogue's short titles (7 tokens on average) do not pay for the next width of a ladder. Only attention sees which tokens belong
together: it runs once per length (`sidlake.encoders.text.packed_attention`). The idea is that of padding-free batches, as in
NVIDIA's FasterTransformer ("effective transformer") and flash-attention's variable-length kernels.

Not done here: models that number their positions otherwise than from zero, and GPUs, which want few large kernels: they take
`fixed_batches`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["PackedBatch", "Run", "packed_batches"]


class Run(NamedTuple):
    """`num_texts` texts of `length` tokens each, one after the other from the place `start` on."""

    start: int
    num_texts: int
    length: int

    @property
    def end(self) -> int:
        """The place after the last token."""
        return self.start + self.num_texts * self.length


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch:
    """Which texts one forward pass computes: `rows` are their indices in the order of their places, `num_tokens` the places."""

    num_tokens: int
    rows: tuple[int, ...]
    runs: tuple[Run, ...]

    @property
    def real(self) -> int:
        """How many of `rows` are texts and no copies: all."""
        return len(self.rows)


def packed_batches(lengths: Sequence[int], *, num_tokens: int) -> Iterator[PackedBatch]:
    """Yield batches that cover every index of `lengths` once, longest first; each has `num_tokens` places, the last ones unused.

    >>> for batch in packed_batches([3, 5, 3], num_tokens=8):
    ...     print(batch.rows, [tuple(run) for run in batch.runs])
    (1, 0) [(0, 1, 5), (5, 1, 3)]
    (2,) [(0, 1, 3)]
    """
    if lengths and not (min(lengths) > 0 and max(lengths) <= num_tokens):
        raise ValueError(f"lengths must lie in 1..{num_tokens}, got {min(lengths)}..{max(lengths)}")
    rows: list[int] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if used + lengths[index] > num_tokens:
            yield _batch(rows, lengths, num_tokens)
            rows, used = [], 0
        rows.append(index)
        used += lengths[index]
    if rows:
        yield _batch(rows, lengths, num_tokens)


def _batch(rows: Sequence[int], lengths: Sequence[int], num_tokens: int) -> PackedBatch:
    runs: list[Run] = []
    for index in rows:
        if runs and runs[-1].length == lengths[index]:
            runs[-1] = runs[-1]._replace(num_texts=runs[-1].num_texts + 1)
        else:
            runs.append(Run(runs[-1].end if runs else 0, 1, lengths[index]))
    return PackedBatch(num_tokens=num_tokens, rows=tuple(rows), runs=tuple(runs))
