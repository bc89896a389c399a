from __future__ import annotations

import pytest

from sidlake.errors import RecipeError
from sidlake.generative.config import DecoderConfig, GenerativeConfig


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"inputs": ()}, "inputs is empty"),
        ({"heads": ()}, "heads is empty"),
        ({"inputs": ("codes", "codes")}, "inputs names one thing twice"),
        ({"heads": ("item",), "decode": "depth", "repeats": False}, "decode = 'depth' needs that head"),
        ({"inputs": ("fused", "item")}, "the depth head spells codes"),
        ({"decode": "depth"}, "set repeats = false"),
        ({"decode": "rerank"}, "set repeats = false"),
        ({"decode": "rerank", "heads": ("depth",), "repeats": False}, "decode = 'rerank' needs both heads"),
        ({"kind": "sasrec"}, "SASRec knows items by number"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_by_name(changes, named):
    with pytest.raises(RecipeError, match=r"\[trainer\] kind = ") as caught:
        DecoderConfig(**changes)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{"d_model": 0}, {"dropout": 1.0}, {"num_heads": 3}, {"temperature": -1.0}, {"learning_rate": 0.0}]
)
def test_sizes_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        DecoderConfig(**changes)


@pytest.mark.parametrize("changes", [{"d_model": 0}, {"dropout": 1.0}, {"num_heads": 5}, {"num_steps": 0}, {"learning_rate": 0.0}])
def test_sizes_of_tiger_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        GenerativeConfig(**changes)


def test_sasrec_is_the_same_body_over_item_numbers():
    config = DecoderConfig(kind="sasrec", inputs=("item",), heads=("item",))
    assert (config.inputs, config.heads, config.decode) == (("item",), ("item",), "item")
