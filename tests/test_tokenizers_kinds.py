"""What every kind keeps that codes by the vector alone: rows alone decide, fits repeat, artifacts travel, bad input is named.

A kind comes in by its line in the registry; what it must be given beside widths stands in `neural_sample.SMALL`. Wrappers and the
indexes, which spell other facts, have tests of their own; settings are tried for every kind.
"""

from functools import cache

import numpy as np
import pytest
from neural_sample import SMALL, WIDTHS, assert_the_same_in_another_process, facts, fitted, rows

from sidlake.errors import ArtifactError, FitError
from sidlake.tokenizers.artifact import codebook_hash
from sidlake.tokenizers.generations.wrapper import Wrapper
from sidlake.tokenizers.registry import KINDS, tokenizer_class, tokenizer_config
from sidlake.tokenizers.tokenizer import ItemFacts
from sidlake.tokenizers.uniqueness.strategies import make_unique

CLASSES = {kind: tokenizer_class(kind) for kind in sorted(KINDS)}
BY_VECTOR = [kind for kind, of in CLASSES.items() if not of.encode_needs and not issubclass(of, Wrapper)]
TRAINED = sorted(SMALL)


model_of = cache(fitted)


@pytest.fixture(params=BY_VECTOR)
def model(request):
    return model_of(request.param)


def test_a_rows_codes_depend_on_that_row_alone(model):
    x = rows()
    codes, norms = model.encode_with_norms(x)
    order = np.random.default_rng(1).permutation(len(x))
    assert np.array_equal(model.encode_with_norms(x[order])[0], codes[order])
    assert np.array_equal(model.encode_with_norms(x[order])[1], norms[order])
    for size in (1, 7, 64):
        assert np.array_equal(np.concatenate([model.encode(x[i : i + size]) for i in range(0, 70, size)])[:70], codes[:70])


def test_norms_are_what_the_increments_leave_of_the_latents(model):
    x = rows()[:40]
    codes, norms = model.encode_with_norms(x)
    left = model.latents(x).astype(np.float64)
    for row, path in enumerate(codes.tolist()):
        for level, code in enumerate(path):
            left[row] -= model.increments(path[:level])[code]
    assert np.allclose(np.linalg.norm(left, axis=1), norms, atol=1e-5)


@pytest.mark.parametrize("kind", TRAINED)
def test_all_codes_of_a_trained_kind_are_used(kind):
    codes = model_of(kind).encode(rows())
    used = [len(np.unique(codes[:, level])) / width for level, width in enumerate(WIDTHS)]
    assert min(used) >= 0.95


@pytest.mark.parametrize("kind", TRAINED)
def test_counts_of_a_trained_kind_are_those_of_the_fits_rows(kind):
    model = model_of(kind)
    codes = model.encode(rows())
    for level, (_, counts) in enumerate(model.codebooks()):
        assert counts.tolist() == np.bincount(codes[:, level], minlength=WIDTHS[level]).tolist()


def test_deeper_prefixes_say_more_of_the_vectors(model):
    x = rows()
    codes = model.encode(x)
    errors = [np.square(x - model.decode(codes, depth)).sum() for depth in (0, 1, 2)]
    assert errors[2] < errors[1] < errors[0]


def test_another_process_reads_the_same_tokenizer(model, tmp_path):
    assert_the_same_in_another_process(model, rows()[:100], tmp_path)


def test_every_uniqueness_strategy_serves_it(model):
    x = rows()[:90]
    codes, norms = model.encode_with_norms(x)
    for strategy in ("reassign", "optimal", "sinkhorn", "sinkhorn_groups"):
        result = make_unique(
            strategy, model, codes, norms, facts(90).item_hashes_N, latents_of=lambda chosen: model.latents(x[chosen])
        )
        assert len(np.unique(result.codes_NL, axis=0)) == 90


def test_vectors_of_another_dimension_or_with_nan_are_refused(model):
    with pytest.raises(ValueError, match="dimension"):
        model.encode(rows(dim=11))
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.encode(np.full((2, 10), np.nan))
    with pytest.raises(ValueError, match="codes lie in"):
        model.decode([[0, 8]])


@pytest.mark.parametrize("kind", BY_VECTOR)
def test_two_fits_give_the_same_bits(kind):
    import torch

    first = codebook_hash(fitted(kind))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(99)
    try:
        second = codebook_hash(fitted(kind))
    finally:
        torch.set_num_threads(before)
    assert first == second
    assert codebook_hash(fitted(kind, seed=1)) != first


@pytest.mark.parametrize("kind", BY_VECTOR)
def test_a_fit_names_what_is_wrong_with_its_rows(kind):
    with pytest.raises(FitError, match="16 codes need at least 16 rows, got 9"):
        fitted(kind, rows(9))
    broken = rows()
    broken[3, 2] = np.inf
    with pytest.raises(FitError, match="the first is row 3"):
        fitted(kind, broken)


@pytest.mark.parametrize("kind", ["contrastive_rq_vae", "letter"])
def test_a_fit_names_what_it_lacks(kind):
    cls, config = tokenizer_config(kind, {"widths": list(WIDTHS), **SMALL[kind]})
    with pytest.raises(FitError, match=r"pairs_P2|collaborative_NC"):
        cls.fit(rows(), config, facts=ItemFacts())


def test_an_artifact_without_its_network_is_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    from sidlake.tokenizers.artifact import load_codebook, save_codebook

    save_codebook(fitted("rq_vae"), tmp_path / "c.safetensors")
    from safetensors import safe_open

    with safe_open(str(tmp_path / "c.safetensors"), framework="np") as file:
        about = file.metadata()
    kept = {name: tensor for name, tensor in load_file(tmp_path / "c.safetensors").items() if not name.startswith("decoder")}
    save_file(kept, tmp_path / "c.safetensors", metadata=about)
    with pytest.raises(ArtifactError, match="do not belong together"):
        load_codebook(tmp_path / "c.safetensors")


@pytest.mark.parametrize("kind", [kind for kind, of in CLASSES.items() if not issubclass(of, Wrapper)])
def test_every_number_among_its_settings_is_checked(kind):
    fields = CLASSES[kind].config_type.__dataclass_fields__
    numbers = [name for name, field in fields.items() if field.type in ("int", "float")]
    for name in numbers:
        with pytest.raises(ValueError, match=name):
            tokenizer_config(kind, {"widths": list(WIDTHS), name: float("nan")})
    assert "seed" in numbers
