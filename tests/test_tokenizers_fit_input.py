"""What fits take and refuse, whatever the kind: tensors, sampled pairs, far rows; and what they say of where they were made."""

import json

import numpy as np
import pytest
import torch
from neural_sample import SMALL, WIDTHS, facts, fitted, rows

from sidlake.errors import FitError
from sidlake.tokenizers.artifact import codebook_hash, load_codebook, save_codebook
from sidlake.tokenizers.fit_input import far_rows
from sidlake.tokenizers.quantizers.balanced_kmeans import BalancedKMeans, BalancedKMeansConfig
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from sidlake.tokenizers.registry import tokenizer_config
from sidlake.tokenizers.tokenizer import ItemFacts
from sidlake.tokenizers.uniqueness.strategies import make_unique


def test_tensors_are_taken_as_they_come():
    x = torch.tensor(rows(), requires_grad=True)
    config = ResidualKMeansConfig(widths=(8, 4))
    model = ResidualKMeans.fit(x, config)
    assert codebook_hash(model) == codebook_hash(ResidualKMeans.fit(rows(), config))
    assert np.array_equal(model.encode(x.bfloat16()), model.encode(x.detach().bfloat16().float().numpy()))


def test_whole_numbers_of_numpy_are_stored_as_pythons_and_equal(tmp_path):
    config = ResidualKMeansConfig(widths=np.array([8, 4]), seed=np.int64(3))
    assert config == ResidualKMeansConfig(widths=(8, 4), seed=3)
    save_codebook(ResidualKMeans.fit(rows(), config), tmp_path / "c")
    assert "widths (8, 4)" in repr(load_codebook(tmp_path / "c"))


def test_a_config_of_another_class_is_named():
    with pytest.raises(ValueError, match=r"BalancedKMeans\.fit takes a BalancedKMeansConfig, got ResidualKMeansConfig"):
        BalancedKMeans.fit(rows(), ResidualKMeansConfig(widths=(8,)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(FitError, match=r"is to be fitted on cuda:1, and torch finds 0 CUDA devices here"):
        ResidualKMeans.fit(rows(), ResidualKMeansConfig(widths=(8,), device="cuda:1"))


def test_a_far_row_is_named_where_it_would_decide_the_codes_of_all_and_kept_where_not():
    x = rows()
    x[123] = 1e6
    with pytest.raises(FitError, match=r"1 of 400 vectors lie more than 20 times .* the farthest is row 123, at 3.16e\+06"):
        BalancedKMeans.fit(x, BalancedKMeansConfig(widths=(8,)))
    assert len(np.unique(ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(8,))).encode(x))) == 8


def test_no_number_of_copies_hides_a_far_row():
    x = np.zeros((100, 2), np.float32)
    x[:3] = [[0, 1], [1, 0], [500, 0]]
    assert far_rows(x, 20)[0].tolist() == [2]


def test_pairs_are_sampled_before_rows_and_the_artifact_says_how_many_it_learned_from():
    x, known = rows(2000), facts(2000)
    first = np.arange(0, 400, 2)
    pairs_P2 = np.stack([first, first + 1], axis=1)
    cls, config = tokenizer_config(
        "contrastive_rq_vae", {"widths": list(WIDTHS), **SMALL["contrastive_rq_vae"], "max_fit_rows": 200}
    )
    model = cls.fit(x, config, facts=ItemFacts(pairs_P2=pairs_P2, pairs_window=known.pairs_window))
    learned = json.loads(model.own["pairs"].tobytes())["pairs"]
    assert learned == 50  # half of 200 rows, two a pair; of rows drawn by lot two pairs would be left


def test_trained_kinds_say_what_decided_their_bits_and_others_nothing(tmp_path):
    model = fitted("rq_vae")
    digest = save_codebook(model, tmp_path / "c")
    loaded = load_codebook(tmp_path / "c")
    assert loaded.made_with == model.made_with
    assert (loaded.made_with["device"], loaded.made_with["torch"]) == ("cpu", torch.__version__)
    model.made_with = {}
    assert codebook_hash(model) == digest
    assert not ResidualKMeans.fit(rows(), ResidualKMeansConfig(widths=(8,))).made_with


def test_a_training_that_diverges_is_not_blamed_on_the_rows():
    with pytest.raises(FitError, match=r"the training of .* diverged .* lower learning_rate"):
        fitted("rq_vae", learning_rate=1e30)


def test_append_needs_a_tokenizer_with_a_digit():
    x = rows()
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(8, 4)))
    codes, norms = model.encode_with_norms(x)
    with pytest.raises(ValueError, match="append needs a tokenizer with a digit, got residual_kmeans"):
        make_unique("append", model, codes, norms, facts().item_hashes_N, latents_of=lambda chosen: x[chosen])


def test_one_odd_row_among_copies_is_far_by_the_length_of_the_copies():
    x = np.full((600, 3), 2.0, np.float32)
    x[17] = 1000.0
    assert far_rows(x, 20.0)[0].tolist() == [17]
    x[17] = 20.0
    assert far_rows(x, 20.0)[0].tolist() == []
    x[:] = 0.0
    x[17] = 1000.0  # of rows at the origin nothing says what is far
    assert far_rows(x, 20.0)[0].tolist() == []
