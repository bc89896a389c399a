"""The table of steps: its order, and what it makes impossible: stale results, changed settings, runs that go on from nothing."""

import pytest

from sidlake.errors import RetrainNeeded, RunStateError, StaleStepError
from sidlake.pipelines.products import PRODUCTS, RELEASED, VECTORS
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id, run_step
from sidlake.pipelines.run_state import load_state
from sidlake.pipelines.settings.encoders import MODALITIES
from sidlake.pipelines.steps import STEPS, run_job, steps_of
from sidlake.quality.readings import READINGS
from sidlake.warehouse.content import _LEFT_OUT as hashed
from sidlake.warehouse.releases import current, history
from sidlake.warehouse.tables import Warehouse


def opened(shop, job="refresh", **settings):
    settings = {"run_id": new_run_id()} | settings
    return RunContext.open(Warehouse(shop.warehouse), load_recipe(shop.recipe), job=job, **settings)


def edit(shop, old, new):
    text = shop.recipe.read_text()
    assert old in text
    shop.recipe.write_text(text.replace(old, new, 1))


def test_a_step_reads_only_what_steps_before_it_write():
    written: set[str] = set()
    for step in STEPS.values():
        assert set(step.reads) <= written, step.name
        written |= set(step.writes)


def test_every_product_is_written_by_one_step():
    writers = [name for step in STEPS.values() for name in step.writes]
    assert sorted(writers) == sorted(PRODUCTS)


def test_every_encoder_has_a_product_of_vectors():
    assert {PRODUCTS[name].modality for name in VECTORS} - {None} == set(MODALITIES)


def test_every_table_of_a_release_counts_in_its_content_hash_but_vectors_and_rejected_rows():
    assert {PRODUCTS[name].table for name in RELEASED} == {*hashed, "item_embeddings", "rejected_rows"}


def test_a_refresh_learns_nothing():
    learning = {step.name for step in steps_of("retrain")} - {step.name for step in steps_of("refresh")}
    assert learning == {"embed_behaviour", "fit_fusion", "fit", "train"}


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("[trainer]", "[tokenizer]\nseed = 9\n\n[trainer]", "tokenizer.seed"),
        ("[trainer]", "[tokenizer]\nwidths = [8, 8, 8]\n\n[trainer]", "tokenizer.widths"),
        ("[encoders.fusion.text]\nweight = 1.0", "[encoders.fusion.text]\nweight = 0.5", "encoders.fusion.text.weight"),
        ("[encoders.fusion.behaviour]\nweight = 0.7\ndim = 64\n", "", "encoders.fusion.behaviour.dim"),
    ],
)
def test_a_refresh_refuses_by_name_what_only_a_retrain_may_change(shop_copy, old, new, key):
    edit(shop_copy, old, new)
    with pytest.raises(RetrainNeeded, match=key) as error:
        run_job(opened(shop_copy))
    assert key in error.value.details["changed"]
    assert len(history(Warehouse(shop_copy.warehouse))) == 1


def test_a_selection_that_leaves_a_step_out_is_refused_by_the_name_of_what_is_stale(shop_copy):
    ctx = opened(shop_copy)
    ctx.write("interactions", ctx.read("interactions").slice(5))
    with pytest.raises(StaleStepError, match="stale: sequences") as error:
        run_step(ctx, STEPS["release"])
    assert "sequences" in error.value.details["steps"]
    assert current(Warehouse(shop_copy.warehouse)).release_id == "r000001"


def test_a_changed_setting_makes_the_steps_that_it_concerns_stale(shop_copy):
    edit(shop_copy, "[[gates]]", '[[gates]]\nmetric = "unique_share"\nminimum = 0.5\n\n[[gates]]')
    with pytest.raises(StaleStepError, match=r"stale: check\."):
        run_step(opened(shop_copy), STEPS["release"])


def test_a_metric_that_the_base_release_did_not_know_is_measured(shop_copy, monkeypatch):
    monkeypatch.setitem(READINGS, "new_metric", READINGS["unique_share"])
    with pytest.raises(StaleStepError, match=r"stale: check\."):
        run_step(opened(shop_copy), STEPS["release"])


def test_a_run_goes_on_in_another_process_from_what_the_warehouse_keeps(shop_copy):
    first = opened(shop_copy, run_id="one")
    run_step(first, STEPS["ingest"])
    again = opened(shop_copy, run_id="one", going_on=True)
    assert again.state == first.state
    assert again.state.done == ["ingest"]


def test_a_run_whose_state_is_gone_cannot_go_on(shop_copy):
    run_step(opened(shop_copy, run_id="one"), STEPS["ingest"])
    Warehouse(shop_copy.warehouse).remove("runs/one.json")
    with pytest.raises(RunStateError, match="run one cannot go on"):
        opened(shop_copy, run_id="one", going_on=True)


def test_a_job_that_ended_leaves_no_state(shop_copy):
    ctx = opened(shop_copy)
    run_job(ctx, without=["report"])
    assert load_state(ctx.warehouse, ctx.run_id) is None
