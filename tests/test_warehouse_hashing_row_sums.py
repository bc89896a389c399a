"""Sums of rows: what the module's docstring says, computed again by hand with nothing but `hashlib` and `struct`."""

from __future__ import annotations

import hashlib
import struct
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.warehouse.hashing.row_loops import sum_hashes
from sidlake.warehouse.hashing.row_sums import RowSum, sum_of_rows

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PACKED = {pa.int32(): "<i", pa.int64(): "<q", pa.float32(): "<f", pa.float64(): "<d"}
_TS = pa.timestamp("us", tz="UTC")


def value_bytes(value, kind):
    if pa.types.is_list(kind):
        items = [b"\x00" if one is None else b"\x01" + value_bytes(one, kind.value_type) for one in value]
        return struct.pack("<I", len(value)) + b"".join(items)
    if pa.types.is_timestamp(kind):
        return struct.pack("<q", (value - _EPOCH) // timedelta(microseconds=1))
    if pa.types.is_boolean(kind):
        return bytes([value])
    if kind in _PACKED:
        return struct.pack(_PACKED[kind], value)
    text = value.encode() if pa.types.is_string(kind) else value
    return struct.pack("<I", len(text)) + text


def row_bytes(row, schema):
    parts = []
    for name in sorted(schema.names, key=str.encode):
        if row[name] is not None:
            text = name.encode()
            parts += [struct.pack("<I", len(text)), text, value_bytes(row[name], schema.field(name).type)]
    return b"".join(parts)


def slow_sum(rows, schema):
    hashes = [int.from_bytes(hashlib.blake2b(row_bytes(row, schema)).digest(), "little") for row in rows]
    return RowSum(sum(hashes) % 2**512, len(rows))


_VALUES = {
    pa.string(): st.text(max_size=6) | st.text("aé日", min_size=100, max_size=300),
    pa.binary(): st.binary(max_size=5) | st.binary(min_size=120, max_size=140),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    _TS: st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
}
_VALUES |= {pa.list_(kind): st.lists(st.none() | values, max_size=4) for kind, values in list(_VALUES.items())}
_VALUES[pa.list_(pa.list_(pa.string()))] = st.lists(st.none() | _VALUES[pa.list_(pa.string())], max_size=3)


@st.composite
def tables(draw):
    names = draw(st.lists(st.text("abé_", min_size=1, max_size=4), min_size=1, max_size=4, unique=True))
    schema = pa.schema([(name, draw(st.sampled_from(list(_VALUES)))) for name in names])
    row = st.fixed_dictionaries({field.name: st.none() | _VALUES[field.type] for field in schema})
    return schema, draw(st.lists(row, max_size=6))


@settings(max_examples=150, deadline=None)
@given(drawn=tables(), size=st.integers(1, 4))
def test_a_sum_is_what_its_definition_says_however_the_rows_are_batched(drawn, size):
    schema, rows = drawn
    table = pa.Table.from_pylist([*rows[:1], *rows], schema)[len(rows[:1]) :]  # sliced: offsets do not start at 0
    assert sum_of_rows(table.to_batches(max_chunksize=size)) == slow_sum(rows, schema)


@settings(max_examples=50, deadline=None)
@given(drawn=tables(), data=st.data())
def test_sums_of_parts_add_up_to_that_of_the_whole_in_any_order(drawn, data):
    schema, rows = drawn
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    parts = [pa.Table.from_pylist(part, schema).to_batches() for part in (shuffled[:cut], shuffled[cut:])]
    assert sum_of_rows(parts[0]) + sum_of_rows(parts[1]) == sum_of_rows(pa.Table.from_pylist(rows, schema).to_batches())


@pytest.mark.parametrize("size", [0, 1, 7, 8, 127, 128, 129, 255, 256, 257, 1000])
def test_a_hash_is_hashlibs_at_every_edge_of_a_block(size):
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    found = sum_hashes(data, np.array([0, size]))
    assert found.astype("<u8").tobytes() == hashlib.blake2b(data.tobytes()).digest()


def test_a_row_known_by_hand_has_its_sum():
    rows = pa.record_batch({"b": pa.array([None, 1], pa.int32()), "a": ["x", "x"]})
    said = [b"\x01\0\0\0a\x01\0\0\0x", b"\x01\0\0\0a\x01\0\0\0x\x01\0\0\0b\x01\0\0\0"]
    total = sum(int.from_bytes(hashlib.blake2b(one).digest(), "little") for one in said) % 2**512
    assert sum_of_rows([rows]) == RowSum(total, 2)


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
        ([[None, 1]], [[1, None]]),
        (["a", "a"], ["a"]),
        (["a", "a", "b"], ["a", "b", "b"]),
    ],
)
def test_rows_that_could_run_together_have_different_sums(left, right):
    kind = pa.array(left + right).type
    sums = [sum_of_rows(pa.table({"c": pa.array(side, kind)}).to_batches()) for side in (left, right)]
    assert sums[0] != sums[1]


def test_a_nan_counts_by_its_bits():
    bits = np.array([0x7FF8000000000000, 0x7FF8000000000001, 0x7FF8000000000000], dtype="<u8").view("<f8")
    sums = [sum_of_rows([pa.record_batch({"c": pa.array([value], from_pandas=False)})]) for value in bits]
    assert sums[0] == sums[2] != sums[1]


def test_a_column_without_values_is_as_if_it_were_not_there():
    without, beside = pa.table({"a": [1, 2]}), pa.table({"a": [1, 2], "z": pa.nulls(2, pa.string())})
    assert sum_of_rows(without.to_batches()) == sum_of_rows(beside.to_batches())


def test_a_type_that_no_contract_has_is_refused_by_name():
    with pytest.raises(ValueError, match=r"a column of type decimal128\(3, 1\)"):
        sum_of_rows([pa.record_batch({"c": pa.array([None], pa.decimal128(3, 1))})])
