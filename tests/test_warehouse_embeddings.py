"""Vectors between Arrow lists and matrices, and the choice of rows to embed."""

import tracemalloc

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from sidlake.errors import ContractError
from sidlake.warehouse import embeddings
from sidlake.warehouse.contracts import narrow
from sidlake.warehouse.embeddings import as_lists, as_matrix, embedding_rows, matrix_for, missing_rows

X = np.arange(6, dtype=np.float32).reshape(3, 2)
ITEMS = pa.table({"item_id": ["a", "b", "c"], "content_hash": ["1", "2", "3"]})


def stored(*parts):
    return pl.concat([pl.from_arrow(part) for part in parts]).lazy()


def test_lists_and_matrices_round_trip_also_from_slices_and_chunks():
    lists = as_lists(X)
    assert np.array_equal(as_matrix(lists), X)
    assert np.array_equal(as_matrix(lists[1:]), X[1:])
    assert np.array_equal(as_matrix(pa.chunked_array([*lists[:1].chunks, *lists[1:].chunks])), X)


def sparse(folder, shape, dtype):
    """Return an array of zeros that takes no memory: a file of holes."""
    return np.memmap(folder / "holes", dtype=dtype, mode="w+", shape=shape)


def test_more_values_than_offsets_can_number_are_written_in_chunks(monkeypatch):
    monkeypatch.setattr(embeddings, "_MAX_OFFSET", 5)
    lists = as_lists(X)
    assert [chunk.to_pylist() for chunk in lists.chunks] == [X[:2].tolist(), X[2:].tolist()]
    assert np.array_equal(as_matrix(lists), X)
    assert len(embedding_rows(ITEMS, "text", "e1", X)) == 3


def test_strings_and_lists_beyond_32_bits_get_the_types_of_the_table_in_more_chunks(tmp_path):
    data = sparse(tmp_path, (2**31 + 2**20,), np.uint8)
    offsets = np.linspace(0, len(data), 2049).astype(np.int64)
    strings = pa.Array.from_buffers(pa.large_string(), 2048, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    numbers = pa.LargeListArray.from_arrays(pa.array([0, 1, 2] + [3] * 2046), pa.array([1, 2, 3], pa.int64()))
    schema = pa.schema([("text", pa.string()), ("codes", pa.list_(pa.int32()))])
    found = narrow(pa.table({"codes": numbers, "text": strings}), schema)
    assert found.schema == schema
    assert [len(chunk) for chunk in found.column("text").chunks] == [1024, 1024]
    assert found.column("codes")[:3].to_pylist() == [[1], [2], [3]]


def test_one_row_that_is_too_large_for_a_table_is_refused(tmp_path):
    data = sparse(tmp_path, (2**31 + 1,), np.uint8)
    row = pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(np.array([0, len(data)])), pa.py_buffer(data)])
    with pytest.raises(pa.ArrowInvalid, match="too large"):
        narrow(pa.table({"text": row}), pa.schema([("text", pa.string())]))


def test_vectors_of_different_lengths_are_refused():
    with pytest.raises(ContractError, match="vectors of 1 to 2 dimensions"):
        as_matrix(pa.array([[1.0], [1.0, 2.0]], pa.list_(pa.float32())))


def test_only_new_content_or_a_new_encoder_is_missing():
    table = stored(embedding_rows(ITEMS, "text", "e1", X))
    changed = pa.table({"item_id": ["a", "b", "d"], "content_hash": ["1", "9", "4"]})
    assert missing_rows(changed, table, "text", "e1").column("item_id").to_pylist() == ["b", "d"]
    assert missing_rows(ITEMS, table, "text", "e2").num_rows == 3
    assert missing_rows(ITEMS, None, "text", "e1").num_rows == 3


def test_a_matrix_follows_the_items_and_says_what_is_absent():
    table = stored(embedding_rows(ITEMS, "text", "e1", X), embedding_rows(ITEMS, "text", "e2", X + 100))
    wanted = pa.table({"item_id": ["c", "z", "a"], "content_hash": ["3", "0", "1"]})
    x_ND, present_N = matrix_for(wanted, table, "text", "e1")
    assert x_ND.tolist() == [[4, 5], [0, 0], [0, 1]]
    assert present_N.tolist() == [True, False, True]


def test_a_matrix_is_made_without_another_copy_of_its_vectors():
    num, dim = 4000, 256
    items = pa.table({"item_id": [f"i{row}" for row in range(num)], "content_hash": ["h"] * num})
    x_ND = np.random.default_rng(0).standard_normal((num, dim), dtype=np.float32)
    stored = pl.from_arrow(embedding_rows(items, "text", "e", x_ND)).lazy()
    tracemalloc.start()  # which counts NumPy's arrays; what Polars reads is its own
    found_ND, present_N = matrix_for(items, stored, "text", "e")
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found_ND, x_ND)
    assert present_N.all()
    assert x_ND.nbytes < held < 1.5 * x_ND.nbytes


def test_behaviour_is_found_by_item_whatever_its_content_is_now():
    table = stored(embedding_rows(ITEMS, "behaviour", "b", X))
    wanted = pa.table({"item_id": ["b"], "content_hash": ["new"]})
    assert matrix_for(wanted, table, "behaviour", "b", by=["item_id"])[1].tolist() == [True]
