"""The five lines of a notebook: fit, encode, unique, save and load, decode; from one import."""

import subprocess
import sys

import numpy as np
import pytest
from neural_sample import rows

import sidlake.sids
from sidlake.sids import ResidualKMeans, ResidualKMeansConfig, load, save, unique


def test_fit_encode_unique_save_load_decode(tmp_path):
    x, ids = rows(), [f"item-{row}" for row in range(400)]
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(32, 32)))
    sids = unique(model, x, ids)
    save(model, tmp_path / "codebook.safetensors")
    decoded = load(tmp_path / "codebook.safetensors").decode(sids)
    assert len(np.unique(model.encode(x), axis=0)) < len(np.unique(sids, axis=0)) == 400
    assert np.square(x - decoded).sum() < 0.3 * np.square(x - x.mean(axis=0)).sum()


def test_the_order_of_rows_changes_no_items_sid():
    x, ids, order = rows(), [f"item-{row}" for row in range(400)], np.random.default_rng(0).permutation(400)
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(32, 32)))
    assert np.array_equal(unique(model, x[order], [ids[row] for row in order]), unique(model, x, ids)[order])


def test_every_name_it_lists_is_there_and_no_other():
    assert all(getattr(sidlake.sids, name) is not None for name in dir(sidlake.sids))
    with pytest.raises(AttributeError, match=r"sidlake\.sids has no 'KMeans': it has .*ResidualKMeans"):
        sidlake.sids.KMeans  # noqa: B018


def test_k_means_does_not_wait_for_torch():
    code = "import sys; from sidlake.sids import ResidualKMeans; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("ids", [["a"] * 400, ["a", "b"]])
def test_ids_that_do_not_name_the_rows_are_refused(ids):
    model = ResidualKMeans.fit(rows(), ResidualKMeansConfig(widths=(32, 32)))
    with pytest.raises(ValueError, match="item_ids must be one per vector and distinct"):
        unique(model, rows(), ids)
