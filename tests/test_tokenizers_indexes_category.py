"""Category index: the category tree, spelled."""

import numpy as np
import pytest

from sidlake.tokenizers.indexes.category import CategoryIndex, CategoryIndexConfig
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.tokenizer import ItemFacts

SHELF = [
    ["Hair", "Oil"],
    ["Hair", "Oil"],
    ["Hair", "Comb"],
    ["Skin", "Soap"],
    ["Skin", "Cream"],
    ["Hair"],
    ["Hair", "Oil"],
    ["Nails"],
]


def facts(paths, start=0):
    return ItemFacts(item_hashes_N=item_hashes([str(start + row) for row in range(len(paths))]), categories_N=paths)


def fit(paths=SHELF, widths=(4, 4, 8), **fields):
    return CategoryIndex.fit(np.eye(len(paths), 3), CategoryIndexConfig(widths=widths, **fields), facts=facts(paths))


def codes_of(model, paths, start=0):
    return model.encode(np.zeros((len(paths), 3)), facts=facts(paths, start)).tolist()


def test_children_are_numbered_by_frequency_then_name_within_their_parent():
    first_two = [codes[:2] for codes in codes_of(fit(), SHELF)]
    # Hair 5 items, Skin 2, Nails 1; below Hair: Oil 3, then "" before Comb; below Skin: Cream before Soap.
    assert first_two == [[0, 0], [0, 0], [0, 2], [1, 1], [1, 0], [0, 1], [0, 0], [2, 0]]


def test_the_last_code_is_the_items_own_hash():
    one, other = (codes_of(fit(), [["Hair", "Oil"]] * 400, start)[:] for start in (0, 1000))
    assert len({codes[2] for codes in one}) == 8
    assert [codes[2] for codes in one] != [codes[2] for codes in other]
    assert one == codes_of(fit(), [["Hair", "Oil"]] * 400)


def test_without_hashed_levels_items_of_a_category_share_their_sid():
    codes = codes_of(fit(widths=(4, 4), hashed_levels=0), SHELF)
    assert codes[0] == codes[1] == codes[6]
    assert codes[0] != codes[2]


def test_unknown_categories_get_a_code_within_the_width_that_only_the_path_decides():
    model = fit()
    one, other = codes_of(model, [["Toys", "Ball"]], 0)[0], codes_of(model, [["Toys", "Ball"]], 50)[0]
    assert one[:2] == other[:2]
    assert all(0 <= code < 4 for code in one[:2])


def test_children_beyond_the_width_share_codes_and_the_frequent_ones_keep_theirs():
    paths = [[f"c{number}"] for number in range(40) for _ in range(50 - number)]
    codes = codes_of(fit(paths, widths=(8, 4), hashed_levels=1), paths)
    by_name = {path[0]: code[0] for path, code in zip(paths, codes, strict=True)}
    assert [by_name[f"c{number}"] for number in range(8)] == list(range(8))
    assert {by_name[f"c{number}"] for number in range(8, 40)} == set(range(8))


def test_names_with_commas_are_not_mixed_up():
    paths = [["x, y", "z"], ["x", "y, z"], ["x", "k"], ["x", "k"]]
    assert [codes[1] for codes in codes_of(fit(paths, widths=(3, 3, 2)), paths)] == [0, 1, 0, 0]


def test_hashed_levels_out_of_range_are_refused():
    with pytest.raises(ValueError, match="hashed_levels"):
        CategoryIndexConfig(widths=(4, 4), hashed_levels=3)
