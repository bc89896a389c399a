"""Assignments: identifiers and codes that belong together, whatever made them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.errors import ContractError
from sidlake.quality.assignment import Assignment, ends_in_deduplication


def assignment(codes, widths=None, ids=None, **fields):
    codes_NL = np.array(codes, dtype=np.int32)
    ids = [f"i{row}" for row in range(len(codes))] if ids is None else ids
    widths = tuple(codes_NL.max(axis=0) + 1) if widths is None else widths
    return Assignment(name="made", item_ids=pa.array(ids, pa.string()), codes_NL=codes_NL, widths=widths, **fields)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"codes": [[0, 1], [2, 3]], "ids": ["a", "a"]}, r"1 items have more than one SID \(such as 'a'\)"),
        ({"codes": [[0, 1], [2, 3]], "ids": ["a", None]}, "1 items have no identifier"),
        ({"codes": [[0, 1], [2, -3]], "widths": (4, 4)}, r"item 'i1' has code -3 at level 1, allowed is \[0, 4\)"),
        ({"codes": [[0, 1], [4, 3]], "widths": (4, 4)}, r"item 'i1' has code 4 at level 0, allowed is \[0, 4\)"),
    ],
)
def test_broken_rows_are_named_with_an_example(arguments, says):
    with pytest.raises(ContractError, match=says):
        assignment(**arguments)


def test_an_assignment_without_items_is_refused():
    with pytest.raises(ContractError, match="at least 1 item"):
        Assignment(name="made", item_ids=pa.array([], pa.string()), codes_NL=np.empty((0, 2), np.int32), widths=(1, 1))


@pytest.mark.parametrize("widths", [(4,), (4, 4, 4)])
def test_one_width_per_level_is_needed(widths):
    with pytest.raises(ValueError, match="codes must be int32 of shape"):
        assignment([[0, 1], [2, 3]], widths)


def test_codebooks_have_a_vector_per_code():
    fits = assignment([[0, 1], [2, 3]], (3, 4), codebooks=(np.zeros((3, 5)), np.zeros((4, 5))))
    assert [level.shape for level in fits.first_levels(1, why="a test").codebooks] == [(3, 5)]
    with pytest.raises(ValueError, match="do not fit the widths"):
        assignment([[0, 1], [2, 3]], (3, 4), codebooks=(np.zeros((3, 5)), np.zeros((3, 5))))


def test_alignment_follows_identifiers_not_rows():
    found = assignment([[0, 1], [2, 3], [4, 5]], ids=["x", "y", "z"]).aligned_to(pa.array(["z", "x", "y"]))
    assert found.item_ids.to_pylist() == ["z", "x", "y"]
    assert found.codes_NL.tolist() == [[4, 5], [0, 1], [2, 3]]


def test_alignment_takes_identifiers_of_any_type_as_text():
    found = assignment([[0], [1]], ids=["10", "7"]).aligned_to(
        pa.chunked_array([pa.array([7], pa.int32()), pa.array([10], pa.int32())])
    )
    assert found.codes_NL.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (["x", "w"], r"1 of 2 items have no codes \(such as 'w'\), and 1 of its 2 items are unknown here \(such as 'y'\)"),
        (["x"], r"0 of 1 items have no codes, and 1 of its 2 items are unknown here \(such as 'y'\)"),
        (["x", "y", "w"], r"1 of 3 items have no codes \(such as 'w'\), and 0 of its 2 items are unknown here"),
    ],
)
def test_items_that_one_side_lacks_are_an_error_with_examples(ids, says):
    with pytest.raises(ContractError, match=says):
        assignment([[0], [1]], ids=["x", "y"]).aligned_to(pa.array(ids))


def test_levels_taken_off_are_remembered():
    whole = assignment([[0, 1, 0], [2, 3, 1]], (4, 4, 2))
    short = whole.first_levels(2, why="a digit").first_levels(1, why="a test")
    assert (short.codes_NL.tolist(), short.widths) == ([[0], [2]], (4,))
    assert short.stripped == ("the last 1 of 3 levels: a digit", "the last 1 of 2 levels: a test")
    assert whole.first_levels(3, why="nothing").stripped == ()
    with pytest.raises(ValueError, match="has 3 levels; asked for the first 4"):
        whole.first_levels(4, why="a test")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([[5, 0], [5, 1], [7, 0]], True),  # TIGER: from 0
        ([[5, 1], [5, 2], [7, 0]], True),  # GRID: from 1, and 0 for an item alone
        ([[5, 0], [5, 2], [7, 0]], False),  # a gap
        ([[5, 0], [5, 1], [7, 1]], False),  # neither rule
        ([[5, 0], [5, 0], [7, 0]], False),  # tells nothing apart
        ([[5, 0], [6, 0], [7, 0]], False),  # nothing to tell apart
        ([[0], [1]], False),
    ],
)
def test_a_level_that_only_numbers_items_is_recognised(codes, expected):
    assert ends_in_deduplication(np.array(codes)) is expected


@settings(max_examples=25, deadline=None)
@given(
    prefixes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=10, max_size=30),
    seed=st.integers(0, 99),
    grid=st.booleans(),
)
def test_an_appended_digit_is_always_recognised_in_any_order(prefixes, seed, grid):
    seen = {}
    rows = []
    for prefix in prefixes:
        seen[prefix] = seen.get(prefix, -1) + 1
        rows.append([*prefix, seen[prefix] + (grid and prefixes.count(prefix) > 1)])
    shuffled = np.random.default_rng(seed).permutation(np.array(rows))
    assert ends_in_deduplication(shuffled)
