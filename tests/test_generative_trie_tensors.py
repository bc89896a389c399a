from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.generative.trie_tensors import TrieTensors
from sidlake.tokenizers.trie import build_trie

WIDTHS = (3, 4, 5)


def trie_of(keys: list[int]):
    codes = np.stack(np.unravel_index(sorted(keys), WIDTHS), axis=1)
    return build_trie(codes, [str(row) for row in range(len(codes))])


@given(st.sets(st.integers(0, 59), min_size=1))
@settings(max_examples=40, deadline=None)
def test_children_and_dense_tables_say_what_the_trie_says(keys):
    trie = trie_of(list(keys))
    tensors = TrieTensors.from_levels(trie, WIDTHS)
    for level, width in enumerate(WIDTHS):
        for node in range(1 if level == 0 else len(trie.codes[level - 1])):
            codes, first = trie.children(node, level)
            start, end = (int(bound) for bound in tensors.children(torch.tensor(node), level))
            assert (start, end) == (first, first + len(codes))
            assert tensors.codes[level][start:end].tolist() == codes.tolist()
            if tensors.dense[level] is not None:
                expected = np.full(width, -1)
                expected[codes] = np.arange(first, first + len(codes))
                assert tensors.dense[level][node].tolist() == expected.tolist()


def test_full_levels_are_dense_and_sparse_ones_are_not():
    full = TrieTensors.from_levels(trie_of(list(range(60))), WIDTHS)
    assert [table is not None for table in full.dense] == [True, True, True]
    thin = TrieTensors.from_levels(build_trie([[0, 0], [1, 3], [2, 9]], ["p", "q", "r"]), (3, 100))
    assert [table is not None for table in thin.dense] == [True, False]
