"""The prefix trie: what may follow a prefix, and which item a SID is."""

import numpy as np
import pyarrow as pa
import pytest

from sidlake.errors import ArtifactError
from sidlake.tokenizers.trie import Trie, build_trie
from sidlake.warehouse.contracts import conform, schema_of

CODES = [[2, 0, 1], [0, 1, 0], [0, 1, 3], [0, 4, 3], [2, 0, 0]]
ITEMS = ["e", "a", "b", "c", "d"]


@pytest.fixture
def trie():
    return build_trie(CODES, ITEMS)


def test_levels_are_compressed_sparse_rows(trie):
    assert [level.tolist() for level in trie.codes] == [[0, 2], [1, 4, 0], [0, 3, 3, 0, 1]]
    assert [level.tolist() for level in trie.child_start] == [[0, 2], [0, 2, 3], [0] * 5]
    assert [level.tolist() for level in trie.child_end] == [[2, 3], [2, 3, 5], [0] * 5]
    assert trie.item_ids == ("a", "b", "c", "d", "e")


def test_children_are_the_codes_that_may_follow(trie):
    codes, first = trie.children(0, 0)
    assert (codes.tolist(), first) == ([0, 2], 0)
    codes, first = trie.children(1, 1)
    assert (codes.tolist(), first) == ([0], 2)
    codes, first = trie.children(2, 2)
    assert (codes.tolist(), first) == ([0, 1], 3)


def test_every_sid_leads_to_its_item_and_others_to_none(trie):
    assert [trie.lookup(codes) for codes in CODES] == ITEMS
    assert [trie.lookup(codes) for codes in ([0, 1, 1], [1, 0, 0], [0, 1], [0, 1, 0, 0], [2, 0, 2])] == [None] * 5


def test_a_batch_of_beams_sees_what_each_may_do_next(trie):
    codes, nodes, offsets = trie.allowed_next([1, 0, 2], 2)
    assert codes.tolist() == [3, 0, 3, 0, 1]
    assert nodes.tolist() == [2, 0, 1, 3, 4]
    assert offsets.tolist() == [0, 1, 3, 5]
    assert trie.allowed_mask([0, 0], 0, width=4).tolist() == [[True, False, True, False]] * 2
    assert trie.allowed_mask([1, 0], 1, width=5).tolist() == [[True, False, False, False, False], [False, True, False, False, True]]


def test_a_step_follows_allowed_codes_and_stops_at_others(trie):
    nodes = trie.step([0, 0, 0], [0, 2, 1], 0)
    assert nodes.tolist() == [0, 1, -1]
    assert trie.step([0, 0, 1], [4, 2, 0], 1).tolist() == [1, -1, 2]
    assert [trie.item_ids[node] for node in trie.step([0, 2], [3, 1], 2)] == ["b", "e"]


def test_the_table_keeps_the_contract_and_comes_back_the_same(trie):
    table = trie.to_table()
    assert conform(table, "sid_trie").schema.equals(schema_of("sid_trie"))
    assert table.column("item_id").to_pylist() == [None] * 5 + ["a", "b", "c", "d", "e"]
    shuffled = table.take(pa.array(np.random.default_rng(0).permutation(table.num_rows)))
    assert Trie.from_table(shuffled).to_table().equals(table)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [0, 1, 2, 3, 4, 5, 6, 7, 8],
        [0, 2, 3, 4, 5, 6, 7, 8, 9],
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    ],
)
def test_rows_that_make_no_trie_are_refused(trie, rows):
    with pytest.raises(ArtifactError, match="do not make a trie"):
        Trie.from_table(trie.to_table().take(pa.array(rows, pa.int64())))


def test_two_items_with_one_sid_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'p' and 'r' share the SID \[1, 2\]"):
        build_trie([[1, 2], [0, 2], [1, 2]], ["p", "q", "r"])


@pytest.mark.parametrize(("codes", "items"), [(np.empty((0, 3)), []), ([[1]], ["a", "b"]), ([[1]], [""])])
def test_a_trie_needs_items_and_their_names(codes, items):
    with pytest.raises(ValueError, match="a trie needs"):
        build_trie(codes, items)
