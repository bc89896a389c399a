"""The benchmark of recommenders, on a world that can be learned: a row per judge, and a bound on time that holds."""

import importlib.util
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sidlake.generative.judging.judge import popularity_groups
from sidlake.generative.sequences import SequenceReader
from sidlake.generative.timelines import whole_histories
from sidlake.generative.trie_tensors import TrieTensors
from sidlake.tokenizers.trie import Trie

TESTS = Path(__file__).resolve().parent
SAMPLE = SimpleNamespace(**runpy.run_path(str(TESTS / "generative_sample.py")))
FILE = TESTS.parent / "benchmarks" / "recommend.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_recommend", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def catalogue(benchmark):
    sids = SAMPLE.semantic_ids()
    reader = SequenceReader(SAMPLE.cycle_sequences(sids), sids, widths=SAMPLE.WIDTHS, max_history=1)
    trie = TrieTensors.from_trie(Trie.from_table(SAMPLE.trie_table(sids)), reader.catalogue)
    timelines = whole_histories(reader)
    fused = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    return benchmark.Catalogue("cycle", reader, timelines, fused, trie, popularity_groups(timelines.train, num_items=40))


def test_a_training_gives_a_row_per_judge_with_what_was_asked_and_found(benchmark, catalogue):
    config = SAMPLE.tiny_decoder(seed=3, inputs=("codes", "fused"), repeats=False)
    rows = list(benchmark._trained(catalogue, "decoder", config, time.monotonic() + 600, None))
    assert [row["judge"] for row in rows] == ["kept", "left_out"]
    for row in rows:
        assert (row["data"], row["model"], row["kind"], row["inputs"], row["seed"]) == (
            "cycle",
            "decoder",
            "decoder",
            ["codes", "fused"],
            3,
        )
        assert row["recall@10"] > 0.9
        assert 0.0 < row["ndcg@10"] <= 1.0
        assert row["recall@10_low"] <= row["recall@10"] <= row["recall@10_high"]
        assert row["seconds"] > 0.0
        assert not row["stopped_by_time"]
        assert not any(name.startswith("left_out_") for name in row)


def test_a_training_whose_time_is_up_ends_within_its_first_epoch_and_is_judged(benchmark, catalogue):
    rows = list(benchmark._trained(catalogue, "decoder", SAMPLE.tiny_decoder(), time.monotonic() - 1.0, None))
    assert [(row["epochs"], row["stopped_by_time"]) for row in rows] == [(1, True)] * 2


def test_the_anchor_differs_from_the_decoder_by_what_an_item_is_made_of_alone(benchmark):
    for data in benchmark.RECIPES:
        configs = benchmark._configs(data, seed=5)
        decoder, sasrec = configs["decoder"], configs["sasrec"]
        differing = {name for name in type(decoder).__slots__ if getattr(decoder, name) != getattr(sasrec, name)}
        assert differing <= {"kind", "inputs", "heads"}
        assert decoder.seed == sasrec.seed == 5
