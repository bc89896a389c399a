"""SIDs as text and as numbers."""

import numpy as np
import pytest

from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.semantic_id import codes_from_keys, format_sids, parse_sid, sid_keys


def test_a_sid_spells_level_letters_and_codes():
    assert format_sids(np.array([[12, 7, 33], [0, 0, 0]], dtype=np.int32)) == ["<a_12><b_7><c_33>", "<a_0><b_0><c_0>"]


@pytest.mark.parametrize("sid", ["", "a_1", "<a_1", "<b_1>", "<a_1><c_2>", "<a_01>", "<a_-1>", "<a_1> ", "<a_1><b_2>x", "<a_1>\n"])
def test_anything_but_a_sid_is_refused(sid):
    with pytest.raises(ValueError, match="not a semantic ID"):
        parse_sid(sid)


def test_keys_are_mixed_radix_with_the_last_level_fastest():
    assert sid_keys([[0, 0, 0], [0, 0, 3], [0, 1, 0], [1, 0, 0], [1, 2, 3]], (2, 3, 4)).tolist() == [0, 3, 4, 12, 23]


def test_keys_are_refused_only_beyond_63_bits():
    top = [[2**31 - 1, 2**31 - 1]]
    assert sid_keys([[0, 0, 0]], (2**31, 2**31, 2)) is None
    assert sid_keys(top, (2**31, 2**31)).tolist() == [2**62 - 1]
    assert codes_from_keys(sid_keys(top, (2**31, 2**31)), (2**31, 2**31)).tolist() == top


@pytest.mark.parametrize(
    ("codes", "widths", "words"),
    [
        ([[2, 0]], (2, 3), "codes go up to"),
        ([[-1, 0]], (2, 3), "must be >= 0"),
        ([[0, 0]], (2, 3, 4), "codes have 2 levels"),
        ([[0.5, 0.0]], (2, 3), "must be integers"),
        ([[0, 0]], (2, 0), "widths must be"),
    ],
)
def test_codes_that_do_not_fit_are_named(codes, widths, words):
    with pytest.raises(ValueError, match=words):
        sid_keys(codes, widths)


def test_a_key_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"allowed is \[0, 6\)"):
        codes_from_keys([6], (2, 3))


def test_item_hashes_are_the_same_numbers_everywhere():
    # BLAKE2b-64 of these UTF-8 bytes, computed with `b2sum -l 64` and read as little endian.
    assert item_hashes(["85123A", "", "é\U0001f600"]).tolist() == EXPECTED_HASHES


EXPECTED_HASHES = [
    int.from_bytes(bytes.fromhex(digest), "little") for digest in ("bcf9a2ba94c6992b", "e4a6a0577479b2b4", "675c4fdec7d19af6")
]
