"""Faults that make SIDs worthless while every table looks well: each is refused, by a rule that is named."""

import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop_sample import TRANSACTIONS, write_recipe

from sidlake.errors import GateFailed, LawBroken, StaleStepError
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id, run_step
from sidlake.pipelines.steps import steps_of
from sidlake.reports.verification import check_release
from sidlake.tokenizers.artifact import load_codebook, save_codebook
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans
from sidlake.warehouse.codes import ONE_VECTOR, SAME_DISTANCE
from sidlake.warehouse.embeddings import as_lists, as_matrix
from sidlake.warehouse.releases import history
from sidlake.warehouse.tables import Warehouse

ANOTHER_SEED = "\n[tokenizer]\nseed = 1\n"
UNNAMED = ANOTHER_SEED + "align = false\n"
FAR_AWAY = 1e3


@pytest.fixture
def lake(shop, tmp_path):
    """A copy of the small shop after one retrain, with its sources, to be spoilt."""
    shutil.copytree(shop.recipe.parent, tmp_path / "source")
    shutil.copytree(shop.warehouse, tmp_path / "warehouse")
    return Warehouse(tmp_path / "warehouse")


def run(lake, job, spoil, *, extra="", replace=None, override=None):
    """Run `job` but for the training; `spoil` maps a step to what happens after it."""
    recipe = load_recipe(write_recipe(lake.root.parent / "source", extra=extra, replace=replace))
    ctx = RunContext.open(lake, recipe, run_id=new_run_id(), job=job, override=override)
    for step in steps_of(job):
        if step.name != "train":
            run_step(ctx, step)
            spoil.get(step.name, lambda ctx: None)(ctx)
    return ctx


def refused(error):
    return {(row["metric"], row["level"]) for row in error.value.details["failing"]}


def with_level(level, centroids_of):
    """Return what replaces the centroids of `level` in the codebook that a run has just fitted."""

    def spoil(ctx):
        path = ctx.artifact("codebook.safetensors")
        model = load_codebook(path)
        centroids = [np.array(one) for one, _ in model.codebooks()]
        centroids[level] = centroids_of(centroids[level])
        counts = [counts_K for _, counts_K in model.codebooks()]
        spoilt = ctx.warehouse.artifacts_dir / ctx.generation / path.name
        ctx.state.codebook_hash = save_codebook(ResidualKMeans(centroids, counts, model.config), spoilt)
        ctx.warehouse.keep(spoilt, ctx.codebook_hash)

    return spoil


def one_near_code(centroids_KD):
    spoilt_KD = np.full_like(centroids_KD, FAR_AWAY)
    spoilt_KD[0] = 0
    return spoilt_KD


def test_a_codebook_that_puts_every_item_on_one_first_code_is_refused(lake):
    with pytest.raises(GateFailed, match="level_utilisation") as error:
        run(lake, "retrain", {"fit": with_level(0, one_near_code)}, extra=UNNAMED)
    assert {("level_utilisation", 0), ("level_largest_share", 0)} <= refused(error)
    (worst,) = [row for row in error.value.details["failing"] if row["metric"] == "level_largest_share"]
    assert worst["value"] == 1.0
    assert worst["examples"][0].startswith("200 items of level 0, code 0: ")
    assert len(history(lake)) == 1


def test_a_level_that_is_dead_is_refused(lake):
    with pytest.raises(GateFailed) as error:
        run(lake, "retrain", {"fit": with_level(1, one_near_code)}, extra=UNNAMED)
    assert ("level_utilisation", 1) in refused(error)


def test_a_level_on_which_most_codes_are_dead_is_refused(lake):
    half_dead = with_level(2, lambda centroids_KD: np.where(np.arange(len(centroids_KD))[:, None] < 16, centroids_KD, FAR_AWAY))
    with pytest.raises(GateFailed) as error:
        run(lake, "retrain", {"fit": half_dead}, extra=UNNAMED)
    assert ("level_utilisation", 2) in refused(error)


def dealt(rows_of):
    """Return what deals the rows of `semantic_ids` to other items, all columns but the item's own going along."""

    def spoil(ctx):
        rows = ctx.read("semantic_ids").sort_by("item_id")
        ids = rows.column("item_id").take(pa.array(rows_of(len(rows))))
        shuffled = rows.set_column(rows.schema.get_field_index("item_id"), rows.schema.field("item_id"), ids)
        ctx.write("semantic_ids", shuffled, num_levels=3)

    return spoil


def two_swapped(num):
    return [1, 0, *range(2, num)]


@pytest.mark.parametrize("rows_of", [lambda num: np.random.default_rng(0).permutation(num), two_swapped])
def test_sids_dealt_to_other_items_are_refused_whatever_the_override(lake, rows_of):
    with pytest.raises(LawBroken, match=SAME_DISTANCE) as error:
        run(lake, "retrain", {"assign": dealt(rows_of)}, extra=ANOTHER_SEED, override="never mind")
    assert error.value.details["rule"] == SAME_DISTANCE
    assert error.value.details["count"] >= 2
    assert len(history(lake)) == 1


def before_release(spoil):
    return {"check": spoil}


def test_a_duplicated_sid_smuggled_into_a_committed_file_is_refused_whatever_the_override(lake):
    def smuggle(ctx):
        (path,) = map(Path, ctx.warehouse.files("semantic_ids", version=ctx.tables["semantic_ids"]))
        entry = path.parent / "_delta_log" / f"{ctx.tables['semantic_ids']:020d}.json"
        size = f'"size":{path.stat().st_size}'
        rows = pq.read_table(path)
        doubled = rows.slice(0, 1).set_column(0, rows.schema.field("item_id"), rows.column("item_id").slice(1, 1))
        pq.write_table(pa.concat_tables([rows.slice(0, 1), doubled, rows.slice(2)]), path)
        assert size in entry.read_text()
        entry.write_text(entry.read_text().replace(size, f'"size":{path.stat().st_size}'))

    with pytest.raises(LawBroken, match="every SID belongs to one item|" + SAME_DISTANCE):
        run(lake, "retrain", before_release(smuggle), extra=ANOTHER_SEED, override="never mind")
    assert len(history(lake)) == 1


def test_quality_that_judged_other_sids_is_refused(lake):
    def write_again(ctx):
        ctx.write("semantic_ids", ctx.read("semantic_ids"), num_levels=3)

    with pytest.raises(StaleStepError, match="stale: sequences, trie, check"):
        run(lake, "retrain", before_release(write_again), extra=ANOTHER_SEED)


def rotated(rows):
    """Return rows of `item_embeddings` as another encoder would make them: as long and as far apart, in other directions."""
    x_ND = as_matrix(rows.column("vector"))
    turn_DD = np.linalg.qr(np.random.default_rng(0).normal(size=(x_ND.shape[1],) * 2))[0]
    where = rows.schema.get_field_index("vector")
    return rows.set_column(where, rows.schema.field("vector"), as_lists((x_ND @ turn_DD).astype(np.float32)))


def of_modality(rows, modality):
    return rows.filter(pa.compute.equal(rows.column("modality"), modality))


def test_vectors_of_another_encoder_under_published_sids_are_refused(lake):
    def swap(ctx):
        rows = ctx.read("item_embeddings")
        others = rows.filter(pa.compute.not_equal(rows.column("modality"), "fused"))
        ctx.write("item_embeddings", pa.concat_tables([others, rotated(of_modality(rows, "fused"))]))

    with pytest.raises(LawBroken, match=SAME_DISTANCE):
        run(lake, "refresh", {"embed_text": swap})


def test_a_second_vector_of_an_item_by_the_same_encoder_is_refused(lake):
    def add(ctx):
        rows = rotated(of_modality(ctx.read("item_embeddings"), "fused"))
        ctx.tables["item_embeddings"] = ctx.warehouse.append("item_embeddings", rows.slice(0, 1), run_id=ctx.run_id)

    with pytest.raises(LawBroken, match=ONE_VECTOR):
        run(lake, "refresh", {"embed_text": add})


def new_items(lake, num=20):
    """Add the transactions of `num` new items to the source: real ones, the next most frequent."""
    path = lake.root.parent / "source" / "transactions.parquet"
    rows = pl.read_parquet(path)
    known = rows["StockCode"].unique()
    every = pl.read_parquet(TRANSACTIONS).select(rows.columns).filter(pl.col("StockCode").str.contains(r"^\d{5}$"))
    fresh = every.filter(~pl.col("StockCode").is_in(known.implode()) & (pl.col("UnitPrice") > 0) & (pl.col("Quantity") > 0))
    names = fresh.group_by("StockCode").len().sort("len", "StockCode", descending=[True, False]).head(num)["StockCode"]
    added = (
        fresh.filter(pl.col("StockCode").is_in(names.implode()))
        .group_by("StockCode", maintain_order=True)
        .head(3)
        .select(rows.columns)
    )
    pl.concat([rows, added]).write_parquet(path)


def test_new_items_are_no_foreigners(lake):
    new_items(lake)
    ctx = run(lake, "refresh", {})
    rows = {row["metric"]: row for row in ctx.read("sid_quality").to_pylist()}
    assert rows["foreign_item_share"]["verdict"] == "pass"
    assert rows["foreign_item_share"]["value"] < 0.25
    assert len(history(lake)) == 2


def test_an_encoder_swapped_under_the_same_name_is_refused_by_the_new_items_it_makes(lake):
    new_items(lake)

    def swap(ctx):
        rows = ctx.read("item_embeddings")
        known = ctx.warehouse.read("items", version=ctx.base.tables["items"]).column("item_id")
        text = of_modality(rows, "text")
        new = text.filter(pa.compute.invert(pa.compute.is_in(text.column("item_id"), value_set=known)))
        keep = rows.filter(pa.compute.is_in(rows.column("item_id"), value_set=known))
        assert len(new) == 20
        ctx.write("item_embeddings", pa.concat_tables([keep, rotated(new)]))

    with pytest.raises(GateFailed) as error:
        run(lake, "refresh", {"embed_text": swap})
    assert refused(error) == {("foreign_item_share", None)}
    assert len(error.value.details["failing"][0]["examples"]) == 5


def test_sessions_that_ask_for_events_that_were_learned_are_refused(lake):
    with pytest.raises(GateFailed) as error:
        run(lake, "refresh", {}, replace={"holdout_days = 30": "holdout_days = 60"})
    assert refused(error) >= {("leaked_session_share", None)}
    assert "of user" in error.value.details["failing"][-1]["examples"][0]


def test_an_older_file_delivered_again_makes_sessions_of_what_was_learned_and_is_refused(lake):
    path = lake.root.parent / "source" / "transactions.parquet"
    rows = pl.read_parquet(path)
    rows.filter(pl.col("InvoiceDate") < rows["InvoiceDate"].max() - timedelta(days=20)).write_parquet(path)
    with pytest.raises(GateFailed) as error:
        run(lake, "refresh", {})
    assert ("leaked_session_share", None) in refused(error)


def test_a_new_generation_that_nobody_touched_is_published_and_checked_again_from_storage(lake):
    run(lake, "retrain", {}, extra=ANOTHER_SEED)
    found = check_release(lake)
    assert (found["release"], found["verdict"], found["broken"]) == ("r000002", "pass", [])
    rows = {(row["metric"], row["level"]): row for row in found["metrics"]}
    assert {("leaked_session_share", None), ("unique_share", None), ("code_churn", 0)} <= rows.keys()
    assert rows["ehr_reconstructed", None]["remedy"] is None
