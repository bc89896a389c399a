"""The law that codes lie as far from their item's vector as was stored, for every tokenizer and every way to be unique."""

import numpy as np
import polars as pl
import pytest
from neural_sample import SMALL, facts, rows

from sidlake.tokenizers.generations.relabelled import Relabelled
from sidlake.tokenizers.registry import KINDS, tokenizer_config
from sidlake.tokenizers.tokenizer import ItemFacts
from sidlake.tokenizers.uniqueness.append_digit import AppendDigit
from sidlake.tokenizers.uniqueness.strategies import make_unique
from sidlake.warehouse.codes import _wrong_rows

WIDTHS = [16, 8]
NUM = 100
OF_OTHERS = {"append_digit", "relabelled"}  # made around another kind


def known_facts():
    """Return all facts there are, those of the index baselines too."""
    some = facts(NUM)
    return ItemFacts(
        item_hashes_N=some.item_hashes_N,
        first_seen_N=np.arange(NUM, dtype=np.int64),
        categories_N=[["all", f"kind {row % 7}"] for row in range(NUM)],
        pairs_P2=some.pairs_P2,
        pairs_window=some.pairs_window,
        collaborative_NC=some.collaborative_NC,
    )


def stored(model, uniqueness="reassign"):
    """Return the vectors of 100 items, and the rows that the assign step would store for them."""
    x_ND, known = rows(NUM), known_facts()
    raw_NL, norms_N = model.encode_with_norms(x_ND, facts=known)
    made = make_unique(uniqueness, model, raw_NL, norms_N, known.item_hashes_N, latents_of=lambda at: model.latents(x_ND[at]))
    table = pl.DataFrame(
        {
            "codes": made.codes_NL.tolist(),
            "raw_codes": raw_NL.tolist(),
            "move_cost": made.move_cost_N,
            "residual_norm": made.residual_norm_N,
        }
    )
    return x_ND, table


def fitted(kind):
    cls, config = tokenizer_config(kind, {"widths": WIDTHS, **SMALL.get(kind, {})})
    return cls.fit(rows(NUM), config, facts=known_facts())


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - OF_OTHERS))
def test_what_every_tokenizer_stores_holds_and_codes_that_changed_places_do_not(kind):
    model = fitted(kind)
    x_ND, table = stored(model)
    assert _wrong_rows(model, x_ND, table) == []
    turned = np.roll(np.arange(NUM), 1)
    assert len(_wrong_rows(model, x_ND, table[turned])) > NUM / 2


@pytest.mark.parametrize("uniqueness", ["append", "sinkhorn", "sinkhorn_groups", "optimal"])
def test_what_every_way_to_be_unique_stores_holds(uniqueness):
    model = fitted("residual_kmeans")
    model = AppendDigit.around(model, 32) if uniqueness == "append" else model
    assert _wrong_rows(model, *stored(model, uniqueness)) == []


def test_what_a_generation_named_after_the_former_one_stores_holds():
    rng = np.random.default_rng(0)
    model = Relabelled.around(fitted("residual_kmeans"), [rng.permutation(width) for width in WIDTHS])
    assert _wrong_rows(model, *stored(model)) == []


def test_a_distance_that_was_changed_alone_is_found():
    model = fitted("residual_kmeans")
    x_ND, table = stored(model)
    changed = table.with_columns(
        pl.when(pl.int_range(pl.len()) == 7).then(pl.col("residual_norm") * 1.1).otherwise("residual_norm")
    )
    assert _wrong_rows(model, x_ND, changed) == [7]
