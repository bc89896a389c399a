from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from sidlake.errors import ContractError
from sidlake.generative.catalogue import BOS, PAD, ItemCatalogue, TokenSpace
from sidlake.tokenizers.trie import Trie

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("generative_sample.py"))))


def table(codes: list[list[int]]) -> pa.Table:
    return pa.table({"item_id": [f"i{n}" for n in range(len(codes))], "codes": pa.array(codes, pa.list_(pa.int32()))})


def test_tokens_follow_pad_and_bos_level_by_level():
    assert (PAD, BOS) == (0, 1)
    tokens = TokenSpace(widths=(3, 4, 5)).tokens(np.array([[0, 0, 0], [2, 3, 4]]))
    assert tokens.tolist() == [[2, 5, 9], [4, 8, 13]]
    assert TokenSpace(widths=(3, 4, 5)).size == 14


def test_items_are_numbered_by_their_codes_whatever_the_order_of_rows():
    catalogue = ItemCatalogue.from_table(table([[2, 0, 0], [0, 3, 1], [0, 1, 4]]), widths=(3, 4, 5))
    assert catalogue.item_ids.to_pylist() == ["i2", "i1", "i0"]
    assert catalogue.indices(pa.array(["i0", "i2"])).tolist() == [2, 0]


def test_an_items_index_is_its_leaf_in_the_trie():
    sids = SAMPLE.semantic_ids()
    catalogue = ItemCatalogue.from_table(sids, widths=SAMPLE.WIDTHS)
    assert list(Trie.from_table(SAMPLE.trie_table(sids)).item_ids) == catalogue.item_ids.to_pylist()


def test_history_tokens_spell_items_in_order_and_minus_one_as_pad():
    catalogue = ItemCatalogue.from_table(table([[1, 2, 3]]), widths=(3, 4, 5))
    assert catalogue.history_tokens(np.array([[-1, 0]])).tolist() == [[0, 0, 0, 3, 7, 12]]


@pytest.mark.parametrize("codes", [[[0, 0, 5]], [[0, -1, 0]], [[3, 0, 0]]])
def test_a_code_outside_its_level_is_refused(codes):
    with pytest.raises(ContractError, match="pass the widths of this generation"):
        ItemCatalogue.from_table(table(codes), widths=(3, 4, 5))


@pytest.mark.parametrize("codes", [[], [[0, 0]], [[0, 0, 0], [0, 0, 0, 0]]])
def test_an_empty_catalogue_or_another_sid_length_is_refused(codes):
    with pytest.raises(ContractError, match="expected at least one row of 3 codes"):
        ItemCatalogue.from_table(table(codes), widths=(3, 4, 5))


def test_an_item_without_a_sid_is_named():
    catalogue = ItemCatalogue.from_table(table([[1, 2, 3]]), widths=(3, 4, 5))
    with pytest.raises(ContractError, match="1 references to items without a semantic ID, such as 'ghost'"):
        catalogue.indices(pa.array(["i0", "ghost"]))


@pytest.mark.parametrize("widths", [(), (3, 0)])
def test_widths_without_codes_are_refused(widths):
    with pytest.raises(ValueError, match="at least one level of at least one code"):
        TokenSpace(widths=widths)
