"""Vectors made elsewhere: read in the items' order, and refused with a name where they are broken."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidlake.encoders.precomputed import PrecomputedConfig, load_precomputed, precomputed_id
from sidlake.errors import EncoderError

X = np.arange(6, dtype=np.float32).reshape(3, 2)


def parquet(folder, ids=("b", "a", "z"), vectors=None, kind=None, **config):
    column = pa.array(X.tolist() if vectors is None else vectors, kind or pa.list_(pa.float64()))
    pq.write_table(pa.table({"item_id": pa.array(ids), "vector": column}), folder / "v.parquet")
    return PrecomputedConfig(path="v.parquet", **config)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.float64())]
)
def test_parquet_is_read_in_the_items_order(tmp_path, kind):
    found = load_precomputed(parquet(tmp_path, kind=kind), ["a", "missing", "b"], root=tmp_path)
    assert found.vectors_ND.tolist() == [[2, 3], [0, 0], [0, 1]]
    assert found.present_N.tolist() == [True, False, True]
    assert found.unknown_ids == 1


def test_npy_goes_by_its_file_of_ids_or_by_row_number(tmp_path):
    np.save(tmp_path / "v.npy", X)
    (tmp_path / "ids.txt").write_text("b\na\nz\n")
    named = load_precomputed(PrecomputedConfig(path="v.npy", ids_path="ids.txt"), ["a"], root=tmp_path)
    numbered = load_precomputed(PrecomputedConfig(path="v.npy"), ["2", "7"], root=tmp_path)
    assert named.vectors_ND.tolist() == [[2, 3]]
    assert numbered.vectors_ND.tolist() == [[4, 5], [0, 0]]


def test_the_digest_is_that_of_ids_and_values_not_of_the_file(tmp_path):
    np.save(tmp_path / "v.npy", X)
    (tmp_path / "ids.txt").write_text("b\na\nz")
    digests = {
        load_precomputed(PrecomputedConfig(path="v.npy", ids_path="ids.txt"), ["a"], root=tmp_path).digest,
        load_precomputed(parquet(tmp_path), ["a"], root=tmp_path).digest,
    }
    changed = load_precomputed(parquet(tmp_path, vectors=(X + 1).tolist()), ["a"], root=tmp_path).digest
    assert len(digests) == 1
    assert changed not in digests
    assert precomputed_id(PrecomputedConfig(path="a/v.npy"), changed).startswith("precomputed:v:")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: PrecomputedConfig(path="none.npy"), "no file"),
        (lambda f: parquet(f, ids=("a", "b", "a")), "item 'a' is there more than once"),
        (lambda f: parquet(f, ids=("a", "b", None)), "1 rows have no identifier"),
        (lambda f: parquet(f, vectors=[[1, 2], [1, 2, 3], [1, 2]]), "row 1 has 3 dimensions, row 0 has 2"),
        (lambda f: parquet(f, vectors=[[1, 2], [1, float("nan")], [1, 2]]), r"'a' \(row 1\) is not finite"),
        (lambda f: parquet(f, vectors=[[1, 2], None, [1, 2]]), "1 rows have no vector"),
        (lambda f: parquet(f, vector="embedding"), "no column 'embedding'; it has item_id, vector"),
        (lambda f: parquet(f, ids=("x", "y", "q")), "knows none of the 1 items: its ids look like 'x', the items' like 'a'"),
        (lambda f: parquet(f, ids=(), vectors=[], kind=pa.list_(pa.float32())), "is empty"),
    ],
)  # fmt: skip
def test_a_broken_table_is_named(tmp_path, make, says):
    with pytest.raises(EncoderError, match=says):
        load_precomputed(make(tmp_path), ["a"], root=tmp_path)


def test_a_file_cut_short_is_named(tmp_path):
    config = parquet(tmp_path)
    (tmp_path / "v.parquet").write_bytes((tmp_path / "v.parquet").read_bytes()[:-20])
    with pytest.raises(EncoderError, match="not a readable Parquet file"):
        load_precomputed(config, ["a"], root=tmp_path)


def test_a_pickled_array_is_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(EncoderError, match=r"not a readable \.npy matrix"):
        load_precomputed(PrecomputedConfig(path="v.npy"), ["a"], root=tmp_path)


def test_ids_that_do_not_fit_the_rows_are_named(tmp_path):
    np.save(tmp_path / "v.npy", X)
    (tmp_path / "ids.txt").write_text("a\nb\n")
    with pytest.raises(EncoderError, match=r"2 identifiers, .* has 3 rows"):
        load_precomputed(PrecomputedConfig(path="v.npy", ids_path="ids.txt"), ["a"], root=tmp_path)


@pytest.mark.parametrize(("written", "asked"), [("cafe\u0301 ", "caf\u00e9"), ("\ufeffa", "a")])
def test_ids_are_spelled_as_the_items_are(tmp_path, written, asked):
    found = load_precomputed(parquet(tmp_path, ids=(written, "x", "z")), [asked], root=tmp_path)
    assert found.vectors_ND.tolist() == [[0, 1]]


def test_upper_case_of_the_items_holds_for_vectors(tmp_path):
    found = load_precomputed(parquet(tmp_path), ["A", "B"], root=tmp_path, uppercase_ids=True)
    assert found.vectors_ND.tolist() == [[2, 3], [0, 1]]
    with pytest.raises(EncoderError, match="'B' is there more than once"):
        load_precomputed(parquet(tmp_path, ids=("b", "B", "z")), ["A", "B"], root=tmp_path, uppercase_ids=True)


def test_rows_that_count_from_0_beside_items_that_count_from_1_are_refused(tmp_path):
    np.save(tmp_path / "v.npy", X)
    with pytest.raises(EncoderError, match="would be items 0 to 2, the catalogue has an item 3 and none 0"):
        load_precomputed(PrecomputedConfig(path="v.npy"), ["1", "2", "3"], root=tmp_path)
    assert load_precomputed(PrecomputedConfig(path="v.npy"), ["0", "1", "2", "3"], root=tmp_path).present_N.sum() == 3


def test_complex_numbers_float_ids_and_lists_of_lists_are_refused(tmp_path):
    np.save(tmp_path / "v.npy", X + 1j)
    with pytest.raises(EncoderError, match="complex"):
        load_precomputed(PrecomputedConfig(path="v.npy"), ["0"], root=tmp_path)
    with pytest.raises(EncoderError, match="identifiers are double"):
        load_precomputed(parquet(tmp_path, ids=(1.0, 2.0, 3.0)), ["1"], root=tmp_path)
    nested = pa.list_(pa.list_(pa.float32()))
    with pytest.raises(EncoderError, match="a list of numbers is needed"):
        load_precomputed(parquet(tmp_path, vectors=[[[1.0]], [[2.0]], [[3.0]]], kind=nested), ["b"], root=tmp_path)


def test_a_parquet_file_is_known_by_its_content(tmp_path):
    config = parquet(tmp_path)
    (tmp_path / "v.parquet").rename(tmp_path / "V.PQ")
    assert load_precomputed(PrecomputedConfig(path="V.PQ", item_id=config.item_id), ["a"], root=tmp_path).present_N.all()


LOADS = """
import sys, tracemalloc
import pyarrow as pa
from sidlake.encoders.precomputed import PrecomputedConfig, load_precomputed
tracemalloc.start()  # which counts NumPy's arrays and Python's objects; Arrow counts its own
found = load_precomputed(PrecomputedConfig(path=sys.argv[1]), sys.argv[2:])
print(found.vectors_ND.shape[0], tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory())
"""


def test_of_a_large_table_blocks_are_held_and_the_items_asked_for(tmp_path):
    num, dim = 80_000, 384
    vectors = pa.FixedSizeListArray.from_arrays(np.zeros(num * dim, np.float32), dim)
    ids = [f"item-{row}" for row in range(num)]
    pq.write_table(pa.table({"item_id": ids, "vector": vectors}), tmp_path / "v.parquet", row_group_size=8192)
    command = [sys.executable, "-c", LOADS, str(tmp_path / "v.parquet"), "item-7", "item-59999"]
    shape, held = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert shape == 2
    assert held < 4 * num * dim  # identifiers and some copies of a block; a table that is held is several times as much
