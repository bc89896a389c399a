from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sidlake.quality.metrics.collision import collision_stats
from sidlake.quality.metrics.utilisation import level_usage

BEAUTY = Path(__file__).resolve().parents[2] / "shared" / "data" / "beauty"
codes_strategy = hnp.arrays(np.int32, st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=st.integers(0, 7))


def test_two_equally_used_codes_of_four_have_the_hand_computed_usage():
    (usage,) = level_usage(np.array([[0], [2], [0], [2]]), [4])
    assert (usage.num_used, usage.num_dead, usage.utilisation) == (2, 2, 0.5)
    assert usage.entropy == pytest.approx(np.log(2))
    assert usage.normalised_entropy == pytest.approx(0.5)
    assert usage.perplexity == pytest.approx(2.0)


def test_a_level_of_one_code_is_used_as_evenly_as_it_can_be():
    (usage,) = level_usage(np.zeros((3, 1), dtype=np.int32), [1])
    assert (usage.entropy, usage.normalised_entropy, usage.perplexity) == (0.0, 1.0, 1.0)


@given(codes_strategy)
@settings(max_examples=60, deadline=None)
def test_entropy_agrees_with_scipy(codes_NL):
    for usage, codes_N in zip(level_usage(codes_NL, [8] * codes_NL.shape[1]), codes_NL.T, strict=True):
        counts = np.bincount(codes_N, minlength=8)
        assert usage.entropy == pytest.approx(scipy.stats.entropy(counts), abs=1e-12)
        assert usage.normalised_entropy == pytest.approx(scipy.stats.entropy(counts, base=8), abs=1e-12)


@given(codes_strategy)
@settings(max_examples=60, deadline=None)
def test_perplexity_lies_between_one_and_the_used_codes(codes_NL):
    for usage in level_usage(codes_NL, [8] * codes_NL.shape[1]):
        assert 1.0 <= usage.perplexity <= usage.num_used + 1e-9
        assert usage.num_used + usage.num_dead == usage.width


@pytest.mark.parametrize(
    ("codes", "widths", "message"),
    [
        ([[4]], [4], r"level 0.*\[4, 4\].*\[0, 3\]"),
        ([[-1]], [4], "level 0"),
        ([[0, 1]], [4], "one column per width"),
        ([], [4], "shape"),
    ],
)
def test_codes_outside_their_level_are_refused(codes, widths, message):
    with pytest.raises(ValueError, match=message):
        level_usage(np.array(codes, dtype=np.int64).reshape(len(codes), -1), widths)


@pytest.mark.parametrize(
    "name", ["text.rqkmeans", "text.rqvae", "text.rqvae_faiss", "text.qinco", "text.opq", "graph-lightgcn.rqkmeans_plus"]
)
def test_usage_of_published_beauty_codes_agrees_with_its_publishers(name):
    if not BEAUTY.exists():
        pytest.skip("../shared/data/beauty is absent")
    published = json.loads((BEAUTY / "unigenrec_metrics" / f"{name}.metrics.json").read_text())
    query = "select codes from read_parquet(?) where method = ? order by item_id"
    method = f"unigenrec_{name}"
    rows = duckdb.execute(query, [str(BEAUTY / "sids.parquet"), method]).fetchall()
    codes_NL = np.array([codes for (codes,) in rows], dtype=np.int32)[:, : published["num_layers"]]
    assert collision_stats(codes_NL).num_unique == published["sid"]["unique_count"]
    assert collision_stats(codes_NL).collision_rate == pytest.approx(published["sid"]["duplicate_rate"], abs=1e-12)
    usages = level_usage(codes_NL, [layer["codebook_size"] for layer in published["layers"]])
    assert [u.num_used for u in usages] == [layer["used_tokens"] for layer in published["layers"]]
    assert [u.entropy for u in usages] == pytest.approx([layer["entropy"] for layer in published["layers"]], abs=1e-9)
    assert [u.normalised_entropy for u in usages] == pytest.approx([x["normalized_entropy"] for x in published["layers"]], abs=1e-9)
