"""The laws that the tokenizers keep: unique SIDs up to capacity, whatever the order; published SIDs stay; round trips."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.errors import CapacityError
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from sidlake.tokenizers.semantic_id import codes_from_keys, format_sids, parse_sid, sid_keys
from sidlake.tokenizers.trie import Trie, build_trie
from sidlake.tokenizers.uniqueness.reassign import assign_unique

LAW = settings(max_examples=60, deadline=None)


@st.composite
def catalogues(draw, max_share=1.0):
    """Codebooks of few codes, and items: spread, clustered, with duplicates or all the same, up to exactly full."""
    widths = draw(st.sampled_from([(2, 3, 2), (3, 3), (4,), (2, 2, 2, 2), (1, 5, 2)]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    centroids = [rng.normal(size=(width, 3)).astype(np.float32) / (level + 1) for level, width in enumerate(widths)]
    if draw(st.booleans()):
        centroids[-1][:] = centroids[-1][0]  # codes that never got a row are copies
    config = ResidualKMeansConfig(widths=widths)
    model = ResidualKMeans(centroids, [np.ones(width, dtype=np.int64) for width in widths], config)
    capacity = int(np.prod(widths))
    num_items = draw(st.one_of(st.just(int(capacity * max_share)), st.integers(1, max(1, int(capacity * max_share)))))
    spread = draw(st.sampled_from(["spread", "clustered", "duplicates", "identical"]))
    base = rng.normal(size=(num_items, 3))
    if spread == "clustered":
        base = base[rng.integers(0, min(2, num_items), num_items)] + 0.01 * base
    elif spread != "spread":
        base = base[rng.integers(0, 3 if spread == "duplicates" and num_items > 2 else 1, num_items)]
    return model, base.astype(np.float32), [f"item-{row:03d}" for row in range(num_items)]


def assign(model, x, ids, occupied=None, chunk=None):
    step = chunk or max(1, len(x))
    parts = [model.encode_with_norms(x[start : start + step]) for start in range(0, len(x), step)]
    codes, norms = (np.concatenate(column) for column in zip(*parts, strict=True))
    return assign_unique(
        codes, norms, item_hashes(ids), centroids=model.centroids, vectors_of=lambda rows: x[rows], occupied_codes_ML=occupied
    )


@LAW
@given(catalogues())
def test_up_to_capacity_every_item_gets_a_sid_of_its_own(catalogue):
    model, x, ids = catalogue
    codes = assign(model, x, ids).codes_NL
    assert codes.shape == (len(ids), len(model.widths))
    assert ((codes >= 0) & (codes < np.array(model.widths))).all()
    assert len({tuple(row) for row in codes.tolist()}) == len(ids)


@LAW
@given(catalogues())
def test_one_item_beyond_capacity_is_refused_before_anything_is_decided(catalogue):
    model, x, _ = catalogue
    too_many = np.resize(x, (int(np.prod(model.widths)) + 1, x.shape[1]))
    with pytest.raises(CapacityError):
        assign(model, too_many, [str(row) for row in range(len(too_many))])


@LAW
@given(catalogues(), st.data())
def test_neither_order_nor_chunking_changes_an_items_sid(catalogue, data):
    model, x, ids = catalogue
    order = np.array(data.draw(st.permutations(range(len(ids)))))
    one = assign(model, x, ids)
    two = assign(model, x[order], [ids[row] for row in order], chunk=data.draw(st.integers(1, 7)))
    assert np.array_equal(one.codes_NL[order], two.codes_NL)
    assert np.array_equal(one.move_cost_N[order], two.move_cost_N)


@LAW
@given(catalogues(), st.floats(0, 1))
def test_new_items_neither_change_nor_meet_published_sids(catalogue, share):
    model, x, ids = catalogue
    num_published = int(share * len(ids))
    published = assign(model, x[:num_published], ids[:num_published]).codes_NL if num_published else None
    kept = None if published is None else published.copy()
    if num_published == len(ids):
        return
    added = assign(model, x[num_published:], ids[num_published:], occupied=published).codes_NL
    assert published is None or np.array_equal(published, kept)
    both = added.tolist() + ([] if published is None else published.tolist())
    assert len({tuple(row) for row in both}) == len(ids)


@LAW
@given(catalogues())
def test_items_that_did_not_move_have_their_raw_codes_and_all_costs_are_true(catalogue):
    model, x, ids = catalogue
    raw = model.encode(x)
    result = assign(model, x, ids)
    assert np.array_equal(result.moved_N, (raw != result.codes_NL).any(axis=1))
    assert np.array_equal(result.spilled_N, (raw[:, :-1] != result.codes_NL[:, :-1]).any(axis=1))
    now, before = (np.linalg.norm(x - model.decode(codes), axis=1) for codes in (result.codes_NL, raw))
    assert np.allclose(result.residual_norm_N, now, atol=1e-5)
    assert np.allclose(result.move_cost_N, now - before, atol=1e-5)


@st.composite
def sid_tables(draw):
    widths = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    every = list(itertools.product(*map(range, widths)))
    chosen = draw(st.lists(st.sampled_from(every), min_size=1, max_size=60, unique=True))
    return widths, np.array(chosen, dtype=np.int32)


@LAW
@given(sid_tables())
def test_codes_survive_text_and_keys(table):
    widths, codes = table
    assert [parse_sid(sid) for sid in format_sids(codes)] == [tuple(row) for row in codes.tolist()]
    keys = sid_keys(codes, widths)
    assert np.array_equal(codes_from_keys(keys, widths), codes)
    assert np.array_equal(np.argsort(keys), np.lexsort(codes.T[::-1]))


@LAW
@given(sid_tables())
def test_the_trie_accepts_exactly_the_published_sids(table):
    widths, codes = table
    ids = [str(row) for row in range(len(codes))]
    trie = Trie.from_table(build_trie(codes, ids).to_table())
    published = dict(zip(map(tuple, codes.tolist()), ids, strict=True))
    every = list(itertools.product(*map(range, (width + 1 for width in widths))))
    assert {sid: item for sid in every if (item := trie.lookup(sid)) is not None} == published


@LAW
@given(sid_tables())
def test_walking_the_tries_masks_from_the_root_yields_exactly_the_published_sids(table):
    widths, codes = table
    trie = build_trie(codes, [str(row) for row in range(len(codes))])
    nodes, prefixes = np.zeros(1, dtype=np.int64), [()]
    for level, width in enumerate(widths):
        beams, chosen = np.nonzero(trie.allowed_mask(nodes, level, width=width))
        prefixes = [(*prefixes[beam], int(code)) for beam, code in zip(beams, chosen, strict=True)]
        nodes = trie.step(nodes[beams], chosen, level)
        assert (nodes >= 0).all()
    assert sorted(prefixes) == sorted(map(tuple, codes.tolist()))
