"""The step that trains: what it writes about a release, and what is left of a training that died."""

from __future__ import annotations

import dataclasses
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from sidlake.generative.checkpoint import load_checkpoint, read_checkpoint_info
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.pipelines.train import train_recommender
from sidlake.warehouse.releases import get
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))
DECODER = """
[trainer]
kind = "decoder"
d_model = 16
num_layers = 1
num_heads = 2
max_epochs = 3
batch_positions = 64
num_beams = 10
"""


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A release without a model, and the recipe that trains one."""
    folder = tmp_path_factory.mktemp("shop")
    recipe = load_recipe(SAMPLE.write_shop(folder, more=SAMPLE.INTERACTIONS + SAMPLE.BEHAVIOUR + DECODER))
    store = Warehouse.create_or_open(folder / "lake")
    run_job(RunContext.open(store, dataclasses.replace(recipe, trainer=None), run_id=new_run_id(), job="retrain"))
    return store, recipe


def trained(lake, tmp_path, recipe=None):
    """Return a copy of the warehouse in which `recipe` has been trained, and the step's report."""
    store, own = lake
    copy = shutil.copytree(store.root, tmp_path / "lake")
    warehouse = Warehouse.create_or_open(copy)
    return warehouse, train_recommender(RunContext.open(warehouse, recipe or own, run_id=new_run_id(), job="retrain"))


def test_a_decoder_is_trained_on_codes_and_fused_vectors_and_its_curve_is_kept(lake, tmp_path):
    warehouse, report = trained(lake, tmp_path)
    rows = warehouse.read("model_metrics").to_pylist()
    found = {(row["model"], row["split"], row["metric"]): row["value"] for row in rows}
    assert {model for model, _, _ in found} == {"decoder", "most_popular", "item_to_item", "nearest_fused"}
    for epoch in range(1, report.details["epochs"] + 1):
        assert found["decoder", f"epoch {epoch}", "loss"] > 0.0
        assert 0.0 <= found["decoder", f"epoch {epoch}", "ndcg@10"] <= 1.0
    assert {"recall@10", "left_out_recall@10"} <= {
        metric for model, split, metric in found if (model, split) == ("decoder", "test")
    }
    assert report.rows["model_metrics"] == len(rows)
    release = get(warehouse)
    folder = warehouse.checkpoints_dir / str(report.details["checkpoint"])
    assert read_checkpoint_info(folder).release_id == release.release_id
    model = load_checkpoint(folder, generation=release.generation, codebook_hash=release.codebook_hash)
    assert model.fused_NF.shape[0] == warehouse.num_rows("items", release.tables["items"])
    assert [path.name for path in warehouse.checkpoints_dir.iterdir()] == [folder.name]


def test_a_model_that_is_there_is_not_trained_again(lake, tmp_path):
    warehouse, first = trained(lake, tmp_path)
    second = train_recommender(RunContext.open(warehouse, lake[1], run_id=new_run_id(), job="retrain"))
    assert second.skipped
    assert second.details["checkpoint"] == first.details["checkpoint"]
