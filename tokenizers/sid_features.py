"""SIDs as features of ranking models: hashed prefix n-grams, and subwords of a learned vocabulary; indices for embedding tables.

A ranking model that looks an item up by number learns nothing of a new one. Looked up by what its SID begins with, it shares rows
with items that resemble it. Prefixes: ``code_0``, ``code_0 code_1``, …, each hashed to a row of one table (Zheng et al. 2025, arXiv
2504.02137, prefix n-grams; Singh et al. 2023, arXiv 2306.08121, n-grams). Subwords: the pieces into which byte-pair encoding splits
the SID, so that frequent sequences of codes have rows of their own and rare ones are spelled (Singh et al. take SentencePiece's
unigram model). Byte-pair encoding because its training gives the same pieces each time: the unigram trainer of Hugging Face's
`tokenizers` 0.23 gave three vocabularies in three runs on the same SIDs.

Both are functions of an item's codes alone. Codes stay within a generation, so features do; where a retrain keeps an item's codes
(`generations.alignment`), prefixes keep their rows, and subwords do while the vocabulary is kept.

Shape suffixes: N items, L levels.
"""

from __future__ import annotations

import json
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models, trainers

from sidlake.tokenizers.numeric.nearest import Int32Array, Int64Array
from sidlake.tokenizers.tokenizer import checked_codes

__all__ = ["Subwords", "prefix_ngrams"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST_CHARACTER = 0x10000  # beyond surrogates and all that a text normaliser touches
_MOST_CODES = 0x100000  # characters from there on


def prefix_ngrams(codes_NL: npt.ArrayLike, *, num_rows: int, seed: int = 0) -> Int64Array:
    """Return rows_NL in [0, `num_rows`): at level l the hash of the codes up to it, as good as drawn at random.

    Equal prefixes have equal rows; others share one by chance, once in `num_rows`. Each row depends on its codes alone:
    SplitMix64's finalizer (Steele, Lea & Flood 2014) over the codes in turn. `ValueError` for codes that are not whole numbers
    [N, L] from 0 on.

    >>> prefix_ngrams([[3, 1], [3, 2]], num_rows=1000).tolist()
    [[747, 617], [747, 830]]
    """
    codes = _whole(codes_NL)
    if num_rows < 1:
        raise ValueError(f"num_rows must be at least 1, got {num_rows}")
    state_N = np.full(len(codes), np.uint64(seed) + _GOLDEN, dtype=np.uint64)
    rows_NL = np.empty(codes.shape, dtype=np.int64)
    for level in range(codes.shape[1]):
        state_N = _mixed(state_N + _GOLDEN * (codes[:, level].astype(np.uint64) + np.uint64(1)))
        rows_NL[:, level] = (state_N % np.uint64(num_rows)).astype(np.int64)
    return rows_NL


class Subwords:
    """A vocabulary of sequences of codes: every code of every level, and what was merged of them.

    Attributes:
        widths: codes per level. num_rows: of an embedding table for it; row 0 is padding.
    """

    def __init__(self, widths: tuple[int, ...], tokenizer: Tokenizer) -> None:
        self.widths = widths
        self._tokenizer = tokenizer
        self.num_rows = tokenizer.get_vocab_size() + 1

    @classmethod
    def fit(
        cls, codes_NL: npt.ArrayLike, widths: tuple[int, ...], *, num_merges: int, counts_N: npt.ArrayLike | None = None
    ) -> Self:
        """Return the vocabulary of all codes and at most `num_merges` merges, most frequent first; the same for any order of items.

        `counts_N`, such as how often an item was shown, weighs items; without it each counts once. `ValueError` for codes outside
        `widths`, or more than a million codes over all levels.
        """
        codes = checked_codes(codes_NL, widths, None)
        if num_merges < 0:
            raise ValueError(f"num_merges must be a whole number from 0 on, got {num_merges}")
        if sum(widths) > _MOST_CODES:
            raise ValueError(f"subwords spell at most {_MOST_CODES} codes over all levels, the widths {widths} have {sum(widths)}")
        counts = np.ones(len(codes), dtype=np.int64) if counts_N is None else np.asarray(counts_N)
        if counts.shape != (len(codes),) or counts.dtype.kind not in "iu" or (counts < 0).any():
            raise ValueError(
                f"counts must be whole numbers from 0 on, one for each of {len(codes)} items, got {counts.dtype} {counts.shape}"
            )
        alphabet = [chr(_FIRST_CHARACTER + code) for code in range(sum(widths))]
        spelled = sorted(word for word, count in zip(_words(codes, widths), counts.tolist(), strict=True) for _ in range(count))
        tokenizer = Tokenizer(models.BPE())
        size = len(alphabet) + num_merges
        trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet, limit_alphabet=len(alphabet))
        tokenizer.train_from_iterator(spelled, trainer=trainer)
        return cls(tuple(widths), tokenizer)

    def encode(self, codes_NL: npt.ArrayLike) -> Int32Array:
        """Return rows_NL: an item's pieces, from 1 on, then zeros; codes that the fit never saw are spelled one by one."""
        codes = checked_codes(codes_NL, self.widths, None)
        rows_NL = np.zeros((len(codes), len(self.widths)), dtype=np.int32)
        for row, encoding in enumerate(self._tokenizer.encode_batch(_words(codes, self.widths))):
            rows_NL[row, : len(encoding.ids)] = np.asarray(encoding.ids) + 1
        return rows_NL

    def to_json(self) -> str:
        """Return the vocabulary as JSON, from which `from_json` makes it again."""
        return json.dumps({"widths": self.widths, "tokenizer": json.loads(self._tokenizer.to_str())}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the vocabulary that `to_json` wrote; `ValueError` or `KeyError` for anything else."""
        stored: dict[str, Any] = json.loads(text)
        return cls(tuple(stored["widths"]), Tokenizer.from_str(json.dumps(stored["tokenizer"])))


def _words(codes_NL: npt.NDArray[np.integer[Any]], widths: tuple[int, ...]) -> list[str]:
    """Return each SID as a word of a character per level; levels have characters of their own."""
    first_L = _FIRST_CHARACTER + np.cumsum([0, *widths[:-1]])
    points_NL = (codes_NL[:, : len(widths)] + first_L).astype("<u4")
    return [text.decode("utf-32-le") for text in map(bytes, np.ascontiguousarray(points_NL))]


def _mixed(state_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed_N = (state_N ^ (state_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed_N ^ (mixed_N >> np.uint64(31))


def _whole(codes_NL: npt.ArrayLike) -> npt.NDArray[np.integer[Any]]:
    codes = np.asarray(codes_NL)
    if codes.ndim != 2 or codes.dtype.kind not in "iu" or (codes.size and codes.min() < 0):
        raise ValueError(f"codes must be whole numbers from 0 on, of shape [items, levels], got {codes.dtype} {codes.shape}")
    return codes
