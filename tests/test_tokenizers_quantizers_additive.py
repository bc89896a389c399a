"""The laws of all tokenizers whose SIDs add up: a code is its row's own; the same fit and the same file everywhere; bad input."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.errors import ArtifactError, FitError
from sidlake.tokenizers.artifact import codebook_hash, load_codebook, save_codebook
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.quantizers.additive import code_means
from sidlake.tokenizers.registry import tokenizer_class
from sidlake.tokenizers.tokenizer import ItemFacts

KINDS = (
    "balanced_kmeans",
    "product",
    "optimized_product",
    "random_index",
    "sequential_index",
    "category_index",
    "collaborative_index",
    "hybrid_index",
)
WIDTHS = (12, 10, 8)


def items(n=260, d=7, seed=0, start=0):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 9, n)
    x = (np.random.default_rng(99).normal(size=(9, d))[group] + 0.3 * rng.normal(size=(n, d))).astype(np.float32)
    return x, ItemFacts(
        item_hashes_N=item_hashes([f"item-{start + row}" for row in range(n)]),
        first_seen_N=rng.integers(0, 50, n),
        categories_N=[[f"g{number}", f"s{row % 4}"] for row, number in enumerate(group)],
        pairs_P2=rng.integers(0, n, size=(6 * n, 2)),
    )


def fitted(kind, **fields):
    x, facts = items()
    found = tokenizer_class(kind)
    return found.fit(x, found.config_type(widths=WIDTHS, **fields), facts=facts)


MODELS = {kind: fitted(kind) for kind in KINDS}


def of_rows(facts, rows):
    return ItemFacts(
        item_hashes_N=facts.item_hashes_N[rows],
        first_seen_N=facts.first_seen_N[rows],
        categories_N=[facts.categories_N[row] for row in rows],
    )


@settings(max_examples=8, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_neither_order_nor_chunking_changes_a_rows_codes_or_norm(kind, data):
    model = MODELS[kind]
    x, facts = items(60, seed=data.draw(st.integers(0, 99)), start=230)  # some known, some new
    order = np.array(data.draw(st.permutations(range(60))))
    step = data.draw(st.integers(1, 60))
    codes, norms = model.encode_with_norms(x, facts=facts)
    parts = [order[start : start + step] for start in range(0, 60, step)]
    found = [model.encode_with_norms(x[part], facts=of_rows(facts, part)) for part in parts]
    assert np.array_equal(np.concatenate([part[0] for part in found]), codes[order])
    assert np.array_equal(np.concatenate([part[1] for part in found]), norms[order])


@pytest.mark.parametrize("kind", KINDS)
def test_norms_are_what_the_increments_leave_of_the_latents(kind):
    x, facts = items()
    model = MODELS[kind]
    codes, norms = model.encode_with_norms(x, facts=facts)
    total = sum(model.increments(codes[0, :level])[codes[:, level]] for level in range(3))
    assert codes.dtype == np.int32
    assert codes.min() >= 0
    assert (codes.max(axis=0) < WIDTHS).all()
    assert np.allclose(norms, np.linalg.norm(model.latents(x) - total, axis=1), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_to_no_depth_is_zero_and_to_all_levels_beats_the_mean(kind):
    x, facts = items()
    model = MODELS[kind]
    codes = model.encode(x, facts=facts)
    assert not model.decode(codes, depth=0).any()
    assert model.decode(codes).shape == x.shape
    assert np.square(x - model.decode(codes)).sum() < np.square(x - x.mean(axis=0)).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_the_codes_of_the_rows_fitted(kind):
    x, facts = items()
    codes = MODELS[kind].encode(x, facts=facts)
    for level, (centroids, counts) in enumerate(MODELS[kind].codebooks()):
        assert np.array_equal(counts, np.bincount(codes[:, level], minlength=WIDTHS[level]))
        assert len(centroids) == WIDTHS[level]


FIT_AND_PRINT = """
from test_tokenizers_quantizers_additive import KINDS, MODELS
from sidlake.tokenizers.artifact import codebook_hash
print(*[codebook_hash(MODELS[kind]) for kind in KINDS])
"""


def run_python(script, threads):
    tests = os.path.dirname(__file__)  # noqa: PTH120
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": tests}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True).stdout


def test_another_process_with_two_threads_fits_the_same_bits():
    assert run_python(FIT_AND_PRINT, "2").split() == [codebook_hash(MODELS[kind]) for kind in KINDS]


LOAD_AND_PRINT = """
import sys
from hashlib import sha256
from test_tokenizers_quantizers_additive import KINDS, items
from sidlake.tokenizers.artifact import load_codebook
x, facts = items(90, seed=5, start=200)
for kind in KINDS:
    model = load_codebook(f"{sys.argv[1]}/{kind}", dim=7)
    codes, norms = model.encode_with_norms(x, facts=facts)
    print(sha256(codes.tobytes() + norms.tobytes() + model.decode(codes).tobytes()).hexdigest())
"""


def test_codebooks_saved_here_encode_the_same_in_another_process(tmp_path):
    from hashlib import sha256

    x, facts = items(90, seed=5, start=200)
    here = []
    for kind in KINDS:
        save_codebook(MODELS[kind], tmp_path / kind)
        codes, norms = MODELS[kind].encode_with_norms(x, facts=facts)
        here.append(sha256(codes.tobytes() + norms.tobytes() + MODELS[kind].decode(codes).tobytes()).hexdigest())
    script = LOAD_AND_PRINT.replace("sys.argv[1]", repr(str(tmp_path)))
    assert run_python(script, "1").split() == here


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_fits_other_codebooks(kind):
    hashes = {codebook_hash(fitted(kind, seed=seed)) for seed in (0, 0, 1)}
    assert len(hashes) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_codebook_whose_tensors_lost_a_level_is_not_loaded(kind, tmp_path):
    class Short(type(MODELS[kind])):
        def tensors(self):
            return {name: tensor for name, tensor in super().tensors().items() if name != "counts.2"}

    short = object.__new__(Short)
    short.__dict__ = MODELS[kind].__dict__
    save_codebook(short, tmp_path / "c")
    with pytest.raises(ArtifactError, match="damaged"):
        load_codebook(tmp_path / "c")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x[:11], "12 codes need at least 12 rows, got 11"),
        (
            lambda x: np.where(np.arange(x.size).reshape(x.shape) == 20, np.nan, x),
            "1 of 260 vectors hold NaN or infinity, .* row 2",
        ),
        (lambda x: x[:, 0], "must have shape"),
    ],
)
def test_rows_that_cannot_be_fitted_are_named(kind, spoil, words):
    x, facts = items()
    found = tokenizer_class(kind)
    with pytest.raises(FitError, match=words):
        found.fit(spoil(x), found.config_type(widths=WIDTHS), facts=facts)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_cannot_be_encoded_are_named(kind):
    x, facts = items()
    with pytest.raises(ValueError, match=r"\[rows, 7\]"):
        MODELS[kind].encode(x[:, :6], facts=facts)
    with pytest.raises(ValueError, match="1 vectors hold NaN or infinity"):
        MODELS[kind].encode(np.where(np.arange(x.size).reshape(x.shape) == 20, np.inf, x), facts=facts)


def test_means_of_codes_are_exact_enough_and_leave_others_alone():
    rng = np.random.default_rng(0)
    x, codes = rng.normal(size=(40_000, 3)).astype(np.float32), rng.integers(0, 6, 40_000).astype(np.int32)
    codes[codes == 5] = 4
    codes[123] = 5
    means = code_means(x, codes, np.full((7, 3), 9, dtype=np.float32))
    assert np.allclose(means[:6], [x[codes == code].astype(np.float64).mean(axis=0) for code in range(6)], atol=1e-6)
    assert means[6].tolist() == [9, 9, 9]
