"""What the index baselines share, and the random one: hashes that spread, means that decode, facts that must be there."""

import numpy as np
import pytest

from sidlake.errors import FitError
from sidlake.tokenizers.artifact import codebook_hash
from sidlake.tokenizers.indexes.base import IndexConfig, hashed_codes
from sidlake.tokenizers.indexes.by_chance import RandomIndex
from sidlake.tokenizers.indexes.category import CategoryIndex
from sidlake.tokenizers.indexes.collaborative import CollaborativeIndex
from sidlake.tokenizers.indexes.hybrid import HybridIndex
from sidlake.tokenizers.indexes.sequential import SequentialIndex
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.tokenizer import ItemFacts

ALL = [RandomIndex, SequentialIndex, CategoryIndex, CollaborativeIndex, HybridIndex]
NEEDED = {"random_index": "item_hashes_N", "sequential_index": "first_seen_N", "category_index": "categories_N"}


def items(n=200, d=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    return x, ItemFacts(
        item_hashes_N=item_hashes([f"item-{row}" for row in range(n)]),
        first_seen_N=rng.integers(0, 40, n),
        categories_N=[["a", "b", "c"][: 1 + row % 3] for row in range(n)],
        pairs_P2=rng.integers(0, n, size=(5 * n, 2)),
        pairs_window=("2014-01-01T00:00:00", "2014-06-30T00:00:00"),
    )


def test_hashed_codes_are_spread_evenly():
    hashes = item_hashes([str(number) for number in range(50_000)])
    counts = np.bincount(hashed_codes(hashes, 100, seed=3, level=1), minlength=100)
    chi_squared = np.square(counts - 500).sum() / 500
    assert 60 < chi_squared < 150  # 99 degrees of freedom: nine in a thousand lie outside


def test_hashed_codes_of_levels_and_seeds_are_independent():
    hashes = item_hashes([str(number) for number in range(20_000)])
    one, other_level, other_seed = (hashed_codes(hashes, 10, seed=s, level=i) for s, i in ((0, 0), (0, 1), (1, 0)))
    for other in (other_level, other_seed):
        assert abs(float((one == other).mean()) - 0.1) < 0.01


def test_a_random_code_is_the_items_own_whatever_else_is_in_the_catalogue():
    x, facts = items()
    model = RandomIndex.fit(x, IndexConfig(widths=(8, 8)), facts=facts)
    alone = model.encode(x[7:8] * 0, facts=ItemFacts(item_hashes_N=facts.item_hashes_N[7:8]))
    assert np.array_equal(alone, model.encode(x, facts=facts)[7:8])


def test_random_codes_fill_every_level_and_collide_as_chance_has_it():
    x, facts = items(4000)
    codes = RandomIndex.fit(x, IndexConfig(widths=(64, 64)), facts=facts).encode(x, facts=facts)
    assert [len(np.unique(codes[:, level])) for level in range(2)] == [64, 64]
    by_chance = 4096 * (1 - (1 - 1 / 4096) ** 4000)
    assert len(np.unique(codes, axis=0)) == pytest.approx(by_chance, rel=0.05)


def test_a_code_adds_the_mean_of_what_the_codes_before_it_leave():
    x, facts = items()
    model = RandomIndex.fit(x, IndexConfig(widths=(5, 4, 3)), facts=facts)
    codes = model.encode(x, facts=facts)
    rest, decoded = x, np.zeros_like(x)
    for level, width in enumerate((5, 4, 3)):
        means = np.stack([rest[codes[:, level] == code].mean(axis=0) for code in range(width)])
        rest, decoded = rest - means[codes[:, level]], decoded + means[codes[:, level]]
        assert np.allclose(model.increments([0] * level), means, atol=1e-6)
        assert np.array_equal(model.counts[level], np.bincount(codes[:, level], minlength=width))
    assert np.allclose(model.decode(codes), decoded, atol=1e-6)


def test_codes_without_items_add_the_mean_of_all():
    x, facts = items(40)
    model = RandomIndex.fit(x, IndexConfig(widths=(40,)), facts=facts)
    unused = int(np.flatnonzero(model.counts[0] == 0)[0])
    assert np.allclose(model.decode([[unused]])[0], x.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_shuffled_items_fit_the_same_index(kind):
    x, facts = items()
    shuffle = np.random.default_rng(5).permutation(200)
    place = np.argsort(shuffle)
    shuffled = ItemFacts(
        item_hashes_N=facts.item_hashes_N[shuffle],
        first_seen_N=facts.first_seen_N[shuffle],
        categories_N=[facts.categories_N[row] for row in shuffle],
        pairs_P2=place[facts.pairs_P2],
        pairs_window=facts.pairs_window,
    )
    config = kind.config_type(widths=(6, 6, 6))
    assert codebook_hash(kind.fit(x, config, facts=facts)) == codebook_hash(kind.fit(x[shuffle], config, facts=shuffled))


@pytest.mark.parametrize("kind", ALL)
def test_without_the_facts_it_needs_neither_fit_nor_encode_begins(kind):
    x, facts = items()
    config = kind.config_type(widths=(6, 6))
    with pytest.raises(FitError, match=f"tokenizer {kind.kind} needs .*{NEEDED.get(kind.kind, 'pairs_P2')}"):
        kind.fit(x, config, facts=ItemFacts(item_hashes_N=None if kind is RandomIndex else facts.item_hashes_N))
    with pytest.raises(FitError, match=f"tokenizer {kind.kind} needs"):
        kind.fit(x, config, facts=facts).encode(x)


def test_facts_of_other_items_are_noticed():
    x, facts = items()
    with pytest.raises(ValueError, match="199 vectors, but item_hashes_N of 200 items"):
        RandomIndex.fit(x[:199], IndexConfig(widths=(6,)), facts=facts)
    with pytest.raises(ValueError, match="pairs name rows 0 to 200, but there are 200"):
        CollaborativeIndex.fit(
            x, IndexConfig(widths=(6,)), facts=ItemFacts(item_hashes_N=facts.item_hashes_N, pairs_P2=np.array([[0, 200]]))
        )
