"""Lineage: the chain of an item, a release, a checkpoint, on a small warehouse whose history is known."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sidlake.errors import NotFoundError
from sidlake.warehouse.keep.pins import pin
from sidlake.warehouse.lineage import lineage
from sidlake.warehouse.releases import publish
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))
FIRST, LAST = SAMPLE.item_ids(14)[0], SAMPLE.item_ids(14)[13]
TRAINED = {"items": 12, "sha256": "feed", "seed": 7}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    """r000001: 12 items of g1; r000002: 14 items of g1; r000003: the first 12 items in g2; a checkpoint of r000002."""
    warehouse = Warehouse.create_or_open(tmp_path_factory.mktemp("lake"))
    parent = None
    for number, (count, generation) in enumerate([(12, "g1"), (14, "g1"), (12, "g2")], 1):
        tables = SAMPLE.write(warehouse, count, generation=generation, skip=int(generation == "g2"))
        config = {"name": "shop", "tokenizer": {"seed": 7}, "trainer": {"seed": 3, "num_steps": 5}}
        draft = replace(SAMPLE.draft(tables, generation=generation), config=config, trained_on=TRAINED, published_by="ann@shop")
        publish(warehouse, draft, expected_parent=parent)
        parent = f"r{number:06d}"
    folder = warehouse.checkpoints_dir / "r000002-abc"
    folder.mkdir()
    (folder / "checkpoint.json").write_text(json.dumps({"release_id": "r000002", "generation": "g1", "codebook_hash": "cafe"}))
    pin(warehouse, "prod", "r000002")
    return warehouse


def test_an_items_chain_leads_through_its_generations_to_the_models_that_know_it(warehouse):
    chain = lineage(warehouse, FIRST)
    history = [(one["release"], one["event"], one["generation"], one["sid"]) for one in chain["history"]]
    assert history == [("r000001", "appeared", "g1", "<a_0><b_0><c_0>"), ("r000003", "moved", "g2", "<a_0><b_0><c_1>")]
    assert (chain["kind"], chain["release"], chain["sid"], chain["generation"]) == ("item", "r000003", "<a_0><b_0><c_1>", "g2")
    assert (chain["codebook_hash"], chain["codebooks_trained_on"], chain["checkpoints"]) == ("cafe", TRAINED, ["r000002-abc"])
    assert chain["content_hash"] == SAMPLE.items([FIRST])["content_hash"][0].as_py()


def test_an_item_that_left_is_told_as_of_the_release_that_had_it_last(warehouse):
    chain = lineage(warehouse, LAST)
    assert [(one["release"], one["event"]) for one in chain["history"]] == [("r000002", "appeared"), ("r000003", "retired")]
    assert (chain["release"], chain["generation"]) == ("r000002", "g1")


def test_a_release_tells_what_it_was_made_of_by_whom_and_who_uses_it(warehouse):
    chain = lineage(warehouse, "prod")
    assert (chain["kind"], chain["release"], chain["parents"], chain["pins"]) == ("release", "r000002", ["r000001"], ["prod"])
    assert chain["seeds"] == {"tokenizer.seed": 7, "trainer.seed": 3}
    assert (chain["published_by"], chain["checkpoints"], chain["codebooks_trained_on"]) == ("ann@shop", ["r000002-abc"], TRAINED)
    assert (chain["inputs"], chain["encoders"], chain["metrics"]) == (
        {"shop": {"rows": 12}},
        {"text": "e@1"},
        {"collision_rate": 0.1},
    )


def test_a_checkpoint_of_another_generation_names_both_and_says_what_to_do(warehouse):
    chain = lineage(warehouse, "r000002-abc")
    assert (chain["kind"], chain["release"], chain["fits_current"]) == ("checkpoint", "r000002", False)
    assert "generation g1 only" in chain["remedy"]
    assert "r000003 of generation g2" in chain["remedy"]
    assert chain["trained_on"]["release"] == "r000002"
    assert lineage(warehouse, str(warehouse.checkpoints_dir / "r000002-abc")) == chain


def test_what_nobody_knows_is_refused(warehouse, tmp_path):
    with pytest.raises(NotFoundError, match="r000001 to r000003 are kept"):
        lineage(warehouse, "nothing")
    with pytest.raises(NotFoundError, match="nothing has been published"):
        lineage(Warehouse.create_or_open(tmp_path), "nothing")
