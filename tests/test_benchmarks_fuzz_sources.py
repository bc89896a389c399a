"""The fuzzer of sources: a few inputs of every end, and what it found stays found."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_files_sample import ingested

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import fuzz_sources

from sidlake.errors import SidlakeError
from sidlake.pipelines.ingest import items


def test_random_sources_end_in_tables_or_in_a_named_error():
    tally = fuzz_sources.fuzz(seconds=60, seed=42, inputs=60)
    assert tally.shown == []
    assert tally.ends["tables"] > 5
    assert len(tally.ends) > 2


def test_an_error_that_is_none_of_ours_is_counted_and_shown(monkeypatch):
    def broken(*_, **__):
        raise KeyError("nobody expects this")

    monkeypatch.setattr(items, "as_identifier", broken)
    tally = fuzz_sources.fuzz(seconds=60, seed=42, inputs=20)
    assert tally.ends["traceback"] > 0
    assert "nobody expects this" in tally.shown[0]


def test_equal_seeds_make_equal_inputs():
    assert [fuzz_sources.one_input(seed).end for seed in range(8)] == [fuzz_sources.one_input(seed).end for seed in range(8)]


@pytest.mark.parametrize("at", [8, 40, 200])
def test_a_footer_with_a_changed_byte_is_an_error_of_ours(tmp_path, at):
    """A panic of the compiled reader is no Exception of Python's: it must not end the process that ingests."""
    pq.write_table(pa.table({"id": ["a", "b"], "name": ["x", "y"]}), tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for value in range(0, 256, 16):
        (tmp_path / "items.parquet").write_bytes(data[: len(data) - at] + bytes([value]) + data[len(data) - at + 1 :])
        try:
            ingested(tmp_path, "items.parquet")
        except SidlakeError:
            continue
