"""The tree of SID prefixes, cut to what a person can browse: the fullest prefixes, some items of each, words that tell them apart.

The tree is bounded in all directions, so a page made of it does not grow with the catalogue. What is left out is counted.
Not done here: the trie that decoding reads (`sidlake.tokenizers.trie`), which holds every item.

Shapes: N items in lexicographic order of their codes, L levels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Prefix", "distinctive_words", "prefix_tree", "word_shares"]

_SAMPLE = 40  # titles of a prefix that its words are taken from
_NUM_WORDS = 4
_WORD = re.compile(r"[^\W\d_]{3,}")
_FAMILIAR = frozenset({"and", "the", "for", "with", "set", "of", "from"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix:
    """A prefix with `num_items` items below it.

    Attributes:
        codes: the prefix; empty at the root.
        sample: rows of items spread over the prefix, for its words.
        children: the fullest prefixes one level longer, in order of their codes; empty at the last prefix before the items.
        rows: rows of the items shown: below the last prefix all, before it those that are alone with their next code.
        num_hidden: children and items that are not shown.
    """

    codes: tuple[int, ...]
    num_items: int
    sample: tuple[int, ...]
    children: tuple[Prefix, ...] = ()
    rows: tuple[int, ...] = ()
    num_hidden: int = 0

    def walk(self) -> Iterator[Prefix]:
        """Yield this prefix and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def prefix_tree(
    codes_NL: npt.NDArray[np.integer[Any]], *, max_children: Sequence[int] = (256, 48), max_items: int = 64, max_shown: int = 17_000
) -> Prefix:
    """Return the root of the tree of `codes_NL`, whose rows are sorted lexicographically.

    `max_children` bounds the children of a prefix of depth 0, 1, …; its last entry is that of all greater depths. `max_items`
    bounds the items listed below the last prefix, and `max_shown` all prefixes and items together, dealt out by the items below.

    >>> root = prefix_tree(np.array([[0, 0], [0, 1], [2, 0]]))
    >>> [(child.codes, child.num_items, child.rows) for child in root.children]
    [((0,), 2, (0, 1))]
    >>> root.rows
    (2,)
    """
    return _below(codes_NL, 0, (), (tuple(max_children), max_items), max_shown)


def _below(
    codes_ND: npt.NDArray[np.integer[Any]], first: int, codes: tuple[int, ...], limits: tuple[tuple[int, ...], int], left: int
) -> Prefix:
    """Return the prefix `codes`, which the rows `codes_ND` share; the first of them is row `first` of all, `left` may be shown."""
    max_children, max_items = limits
    depth, num = len(codes), len(codes_ND)
    spread = np.unique(np.linspace(first, first + num - 1, _SAMPLE).astype(int)).tolist() if codes else []
    if depth >= codes_ND.shape[1] - 1:
        shown = max(0, min(num, max_items, left))
        rows = tuple(range(first, first + shown))
        return Prefix(codes=codes, num_items=num, sample=tuple(spread), rows=rows, num_hidden=num - shown)
    values, starts, counts = np.unique(codes_ND[:, depth], return_index=True, return_counts=True)
    fullest = np.sort(np.argsort(-counts, kind="stable")[: max(0, min(max_children[min(depth, len(max_children) - 1)], left))])
    left -= len(fullest)
    alone, shared = fullest[counts[fullest] == 1], fullest[counts[fullest] > 1]
    num_shared = max(1, int(counts[shared].sum()))
    children = tuple(
        _below(
            codes_ND[starts[one] : starts[one] + counts[one]],
            first + int(starts[one]),
            (*codes, int(values[one])),
            limits,
            left * int(counts[one]) // num_shared,
        )
        for one in shared
    )
    rows = tuple((first + starts[alone]).tolist())
    hidden = len(values) - len(fullest)
    return Prefix(codes=codes, num_items=num, sample=tuple(spread), children=children, rows=rows, num_hidden=hidden)


def distinctive_words(titles: Sequence[str], everywhere: Mapping[str, float]) -> tuple[str, ...]:
    """Return up to four words of `titles`, those whose share here most exceeds that in `everywhere` (word: share of titles).

    >>> distinctive_words(["red mug", "blue mug", "lamp"], {"mug": 0.1, "red": 0.5})
    ('mug', 'blue', 'lamp')
    """
    shares = word_shares(titles)
    gains = {word: share - everywhere.get(word, 0.0) for word, share in shares.items()}
    return tuple(sorted((word for word, gain in gains.items() if gain > 0), key=lambda word: (-gains[word], word))[:_NUM_WORDS])


def word_shares(titles: Sequence[str]) -> dict[str, float]:
    """Return the share of `titles` that each word occurs in, lower case, short and common words left out."""
    counts: Counter[str] = Counter(word for title in titles for word in set(_WORD.findall(title.lower())) - _FAMILIAR)
    return {word: count / len(titles) for word, count in counts.items()}
