"""Vectors of a release: those in force and no others, none computed twice, and the right ones after a rollback."""

import polars as pl
import pytest

from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.holds import lift
from sidlake.warehouse.releases import current, rollback
from sidlake.warehouse.tables import Warehouse


def recipe_of(folder, *, seed=0, kinds=("style",)):
    vectors = "".join(
        f'[encoders.precomputed.{kind}]\npath = "{kind}.parquet"\n[encoders.fusion.{kind}]\ndim = 4\n' for kind in kinds
    )
    (folder / "recipe.toml").write_text(f"""
name = "tiny"
[sources.items]
path = "items.parquet"
[items]
source = "items"
item_id = "id"
title = {{ column = "title" }}
[encoders.text]
precision = "float32"
[encoders.fusion.text]
dim = 4
{vectors}
[tokenizer]
widths = [3, 4, 8]
seed = {seed}
""")


@pytest.fixture
def shop(tmp_path):
    """A folder of twelve items with text and vectors from a table, released once."""
    draw = [[float((item * 7 + place * 3) % 11) for place in range(6)] for item in range(12)]
    pl.DataFrame({"item_id": [f"I{n:02d}" for n in range(12)], "vector": draw}).write_parquet(tmp_path / "style.parquet")
    write(tmp_path)
    recipe_of(tmp_path)
    run(tmp_path, "retrain")
    return tmp_path


def write(folder, *, changed=()):
    titles = [f"{'new' if n in changed else 'old'} thing {n}" for n in range(12)]
    pl.DataFrame({"id": [f"I{n:02d}" for n in range(12)], "title": titles}).write_parquet(folder / "items.parquet")


def run(folder, job):
    lake = Warehouse.create_or_open(folder / "lake")
    ctx = RunContext.open(lake, load_recipe(folder / "recipe.toml"), run_id=new_run_id(), job=job)
    return {report.step: report for report in run_job(ctx, without=["report"])}


def rows(folder):
    lake = Warehouse(folder / "lake")
    release = current(lake)
    return lake.scan("item_embeddings", version=release.tables["item_embeddings"]).collect(), release


def test_an_item_that_changes_has_one_vector_of_each_modality(shop):
    write(shop, changed=[3, 5])
    reports = run(shop, "refresh")
    assert reports["embed_text"].details["embedded"] == 2
    found, _ = rows(shop)
    assert found.group_by("item_id", "modality").len()["len"].to_list() == [1] * 36
    assert set(found["modality"]) == {"text", "style", "fused"}


def test_a_release_holds_no_vectors_of_encoders_that_are_not_its_own(shop):
    recipe_of(shop, seed=1, kinds=())
    run(shop, "retrain")
    found, release = rows(shop)
    assert set(found["encoder_id"]) == {release.encoders["text"], release.encoders["fused"]}
    assert len(found) == 24


def test_after_a_rollback_a_refresh_has_the_vectors_of_the_contents_it_releases_and_computes_none_anew(shop):
    first, _ = rows(shop)
    write(shop, changed=[3])
    run(shop, "refresh")
    lake = Warehouse(shop / "lake")
    lift(lake, rollback(lake, "r000001", "a mistake"), reason="mended")
    write(shop, changed=[4])
    reports = run(shop, "refresh")
    assert reports["embed_text"].details["embedded"] == 1
    found, _ = rows(shop)
    keys = ["item_id", "modality", "encoder_id", "content_hash"]
    kept = found.filter(pl.col("item_id") != "I04").sort(keys)
    assert kept.equals(first.filter(pl.col("item_id") != "I04").sort(keys))


def test_what_a_run_that_failed_has_embedded_is_not_embedded_again(shop):
    write(shop, changed=[1, 2])
    text = (shop / "recipe.toml").read_text()
    (shop / "recipe.toml").write_text(text + '\n[[gates]]\nmetric = "unique_share"\nminimum = 1.1\n')
    with pytest.raises(Exception, match="quality gate refused"):
        run(shop, "refresh")
    (shop / "recipe.toml").write_text(text)
    assert run(shop, "refresh")["embed_text"].details == {
        "encoder": rows(shop)[1].encoders["text"], "embedded": 0, "reused": 12,
    }  # fmt: skip
