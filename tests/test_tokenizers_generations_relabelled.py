"""Codes by other names, around every sort of tokenizer: nothing but the names differs."""

import numpy as np
import pytest
from neural_sample import WIDTHS, assert_the_same_in_another_process, facts, fitted, rows

from sidlake.errors import ArtifactError
from sidlake.tokenizers.artifact import codebook_hash, load_codebook, save_codebook
from sidlake.tokenizers.generations.relabelled import Relabelled, RelabelledConfig, own_codes
from sidlake.tokenizers.registry import tokenizer_config
from sidlake.tokenizers.uniqueness.append_digit import AppendDigit
from sidlake.tokenizers.uniqueness.strategies import make_unique

PLAIN = ("residual_kmeans", "beam_kmeans", "optimized_product", "random_index")
NAMES = [np.random.default_rng(3).permutation(width) for width in WIDTHS]


def fit(kind):
    if kind not in PLAIN:
        return fitted(kind)
    cls, config = tokenizer_config(kind, {"widths": list(WIDTHS)})
    return cls.fit(rows(), config, facts=facts())


@pytest.fixture(scope="module", params=[*PLAIN, "qinco"])
def inner(request):
    return fit(request.param)


def test_codes_are_the_inner_codes_by_their_names_and_norms_are_the_same(inner):
    model = Relabelled.around(inner, NAMES)
    codes, norms = inner.encode_with_norms(rows(), facts=facts())
    found, found_norms = model.encode_with_norms(rows(), facts=facts())
    assert found.tolist() == [[int(NAMES[level][code]) for level, code in enumerate(row)] for row in codes.tolist()]
    assert found.dtype == np.int32
    assert np.array_equal(found_norms, norms)
    assert np.array_equal(model.encode(rows(), facts=facts()), found)
    assert np.array_equal(model.own_codes(found), codes)


def test_codes_decode_to_the_same_vectors_at_every_depth(inner):
    model, codes = Relabelled.around(inner, NAMES), inner.encode(rows(), facts=facts())
    for depth in (0, 1, 2, None):
        assert np.array_equal(model.decode(model.encode(rows(), facts=facts()), depth), inner.decode(codes, depth))
    with pytest.raises(ValueError, match="codes lie in"):
        model.decode([[0, WIDTHS[1]]])


def test_increments_lie_in_the_order_of_the_names(inner):
    model = Relabelled.around(inner, NAMES)
    for code in range(WIDTHS[0]):
        assert np.array_equal(model.increments(())[NAMES[0][code]], inner.increments(())[code])
        below, of_inner = model.increments([NAMES[0][code]]), inner.increments([code])
        assert np.array_equal(below[NAMES[1]], of_inner)
    assert (model.implicit, model.ordered, model.dim, model.widths) == (inner.implicit, inner.ordered, inner.dim, inner.widths)
    assert np.array_equal(model.latents(rows()), inner.latents(rows()))


def test_codebooks_count_the_rows_of_each_name(inner):
    for (book, counts), (own_book, own_counts), names in zip(
        Relabelled.around(inner, NAMES).codebooks(), inner.codebooks(), NAMES, strict=True
    ):
        assert np.array_equal(book[names], own_book)
        assert np.array_equal(counts[names], own_counts)


def test_another_process_reads_the_same_tokenizer(tmp_path):
    model = Relabelled.around(fit("qinco"), NAMES)
    assert_the_same_in_another_process(AppendDigit.around(model, 4), rows()[:100], tmp_path)
    assert codebook_hash(model) != codebook_hash(model.inner)


def test_what_an_index_learned_is_kept_apart_from_the_names(tmp_path):
    model = Relabelled.around(fit("random_index"), NAMES)
    save_codebook(model, tmp_path / "books.safetensors")
    loaded = load_codebook(tmp_path / "books.safetensors")
    assert isinstance(loaded, Relabelled)
    assert sorted(loaded.inner.tensors()) == sorted(model.inner.tensors())
    assert np.array_equal(loaded.encode(rows(), facts=facts()), model.encode(rows(), facts=facts()))


@pytest.mark.parametrize("strategy", ["reassign", "optimal"])
def test_unique_sids_are_the_same_by_other_names(strategy):
    inner = fit("residual_kmeans")
    model, x = Relabelled.around(inner, NAMES), rows()[:100]

    def unique(tokenizer):
        codes, norms = tokenizer.encode_with_norms(x)
        hashes = facts(len(x)).item_hashes_N
        return make_unique(strategy, tokenizer, codes, norms, hashes, latents_of=lambda chosen: tokenizer.latents(x[chosen]))

    plain, other = unique(inner), unique(model)
    assert plain.moved_N.any()
    assert np.array_equal(model.own_codes(other.codes_NL), plain.codes_NL)
    assert np.array_equal(other.move_cost_N, plain.move_cost_N)


def test_own_codes_are_seen_through_a_digit_and_are_the_codes_of_any_other_tokenizer():
    inner = fit("residual_kmeans")
    model = AppendDigit.around(Relabelled.around(inner, NAMES), 4)
    codes = model.encode(rows())
    assert np.array_equal(own_codes(model, codes)[:, :-1], inner.encode(rows()))
    assert np.array_equal(own_codes(model, codes)[:, -1], codes[:, -1])
    assert np.array_equal(own_codes(inner, codes[:, :-1]), codes[:, :-1])


def test_a_fit_by_config_calls_every_code_by_its_own_name():
    config = RelabelledConfig(inner="residual_kmeans", fields={"widths": (16, 8)})
    assert np.array_equal(Relabelled.fit(rows(), config).encode(rows()), fit("residual_kmeans").encode(rows()))


@pytest.mark.parametrize("names", [[NAMES[0]], [NAMES[0], NAMES[1][:-1]], [NAMES[0], np.zeros(8, int)], [NAMES[0], NAMES[1] + 1]])
def test_names_must_be_a_permutation_of_each_levels_codes(names):
    with pytest.raises(ValueError, match="permutation"):
        Relabelled.around(fit("random_index"), names)


def test_an_artifact_with_other_names_is_refused(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    path = tmp_path / "books.safetensors"
    save_codebook(Relabelled.around(fit("residual_kmeans"), NAMES), path)
    with safe_open(str(path), "np") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["relabelled.0"] = np.roll(tensors["relabelled.0"], 1)
    save_file(tensors, str(path), metadata=about)
    with pytest.raises(ArtifactError, match="damaged: it hashes to"):
        load_codebook(path)
    tensors["relabelled.0"][:] = 0
    save_file(tensors, str(path), metadata=about)
    with pytest.raises(ArtifactError, match="do not belong together"):
        load_codebook(path)
