"""Batches whose shape depends on nothing but the rows in them, so that a row's vector depends on nothing but the row.

A matrix product may add in another order when its shape changes, and attention may take another kernel when no row has padding.
So every text is padded to the next width of a fixed ladder, every batch of a width has the same number of rows (the last one is
filled up with copies of its last row), and rows that fill their width exactly never share a batch with rows that do not. What
company a text keeps, its place in the batch and the order of the input then change no bit of its vector.

Deliberately not done: packing several short texts into one row, or smaller shapes for the tail. Both make the shape depend on
the neighbours. The price is padding: under half a batch per width on average, so pass thousands of texts at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["FixedBatch", "fixed_batches", "ladder_width"]

# Steps grow with the length: short texts (a shop's titles have 5-15 tokens) lose little to padding, long ones need few shapes.
_STEPS = ((16, 4), (64, 8), (128, 16), (512, 64))


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedBatch:
    """Which texts one forward pass computes: `rows` indices padded to `width` tokens, the last `rows - real` of them copies."""

    width: int
    rows: tuple[int, ...]
    real: int


def ladder_width(num_tokens: int, max_length: int) -> int:
    """Return the padded width for a text of `num_tokens`: the next step of the ladder, at most `max_length`.

    >>> [ladder_width(n, 256) for n in (1, 8, 9, 17, 65, 200, 256)]
    [4, 8, 12, 24, 80, 256, 256]
    """
    if not 0 < num_tokens <= max_length:
        raise ValueError(f"num_tokens must lie in 1..{max_length}, got {num_tokens}")
    step = next((step for limit, step in _STEPS if num_tokens <= limit), 256)
    return min(-(-num_tokens // step) * step, max_length)


def fixed_batches(lengths: Sequence[int], *, max_length: int, tokens_per_batch: int) -> Iterator[FixedBatch]:
    """Yield batches that cover every index of `lengths` once, longest width first; all batches of one width have one shape.

    A batch of width W has ``max(2, tokens_per_batch // W)`` rows. (Two at least: with one row BLAS takes its matrix-vector
    routine for whatever comes after pooling.)
    """
    members: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for index, length in enumerate(lengths):
        width = ladder_width(length, max_length)
        members[width, length == width].append(index)
    for (width, _), indices in sorted(members.items(), reverse=True):
        size = max(2, tokens_per_batch // width)
        for start in range(0, len(indices), size):
            chunk = indices[start : start + size]
            yield FixedBatch(width=width, rows=(*chunk, *[chunk[-1]] * (size - len(chunk))), real=len(chunk))
