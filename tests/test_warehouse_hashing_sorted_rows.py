"""The content hash of older releases: two columns have one digest exactly when their values are equal."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.warehouse.hashing.sorted_rows import _column_digests

_VALUES = {
    pa.string(): st.none() | st.text("ab é", max_size=4),
    pa.binary(): st.none() | st.binary(max_size=3),
    pa.int32(): st.none() | st.integers(-5, 5),
    pa.float32(): st.none() | st.floats(width=32, allow_nan=False),
    pa.bool_(): st.none() | st.booleans(),
    pa.list_(pa.string()): st.none() | st.lists(st.none() | st.text("ab", max_size=2), max_size=3),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from(list(_VALUES)))
def test_two_columns_have_one_digest_exactly_when_their_values_are_equal_however_they_are_batched(data, kind):
    values = st.lists(_VALUES[kind], min_size=1, max_size=6)
    left, right = data.draw(values), data.draw(values)
    schema = pa.schema([("c", kind)])

    def digest(rows, size):
        array = pa.array([None, *rows], kind)[1:]  # sliced: offsets do not start at 0
        return _column_digests(schema, pa.table({"c": array}).to_batches(max_chunksize=size))

    assert digest(left, 1) == digest(left, 4)
    assert (digest(left, 2) == digest(right, 3)) == (
        pa.array(left, kind).equals(pa.array(right, kind)) and repr(left) == repr(right)
    )


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (["ab", ""], ["a", "b"]),
        ([b"a", None], [b"a", b""]),
        ([["a"], ["b"]], [["a", "b"], []]),
        ([["ab"]], [["a", "b"]]),
        ([["a"], [None]], [["a"], None]),
        ([0, None], [0, 0]),
        ([0.0], [-0.0]),
    ],
)
def test_values_that_run_together_have_different_digests(left, right):
    table = pa.table({"left": left, "right": right})
    schema = pa.schema([("c", table["left"].type)])
    digests = [_column_digests(schema, table.select([side]).rename_columns(["c"]).to_batches()) for side in ("left", "right")]
    assert digests[0] != digests[1]
