"""Pictures and precomputed vectors through a whole run: what an item lacks is recorded, what is broken is rejected."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from sidlake.errors import RecipeError
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.releases import get
from sidlake.warehouse.tables import Warehouse

RECIPE = """
name = "pictures"
[sources.items]
path = "items.parquet"
[items]
source = "items"
item_id = "id"
title = { column = "name" }
image = "picture"
[encoders.text]
precision = "float32"
[encoders.image]
[encoders.precomputed.graph]
path = "graph.npy"
ids_path = "ids.txt"
[encoders.fusion.text]
dim = 16
[encoders.fusion.image]
dim = 16
[encoders.fusion.graph]
dim = 3
[tokenizer]
widths = [8, 8, 8]
"""
NUM = 30


def picture(number):
    stream = io.BytesIO()
    image = Image.new("RGB", (24, 24), (8 * number % 255, 40 * number % 255, 200))
    image.paste((0, 0, 0), (number % 10, 2, 12 + number % 10, 20))
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    pictures = [picture(number) for number in range(NUM)]
    pictures[3], pictures[4] = pictures[3][:60], None
    names = [f"{('red', 'blue', 'green')[n % 3]} {('cup', 'lamp')[n % 2]} number {n}" for n in range(NUM)]
    frame = pl.DataFrame({"id": [f"i{n:02}" for n in range(NUM)], "name": names, "picture": pictures})
    frame.write_parquet(folder / "items.parquet")
    np.save(folder / "graph.npy", np.random.default_rng(0).standard_normal((NUM - 2, 3)).astype(np.float32))
    (folder / "ids.txt").write_text("\n".join(f"i{n:02}" for n in range(2, NUM)))
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def run(catalogue, job="retrain"):
    lake = Warehouse.create_or_open(catalogue / "lake")
    reports = run_job(RunContext.open(lake, load_recipe(catalogue / "recipe.toml"), run_id=new_run_id(), job=job))
    return lake, {report.step: report for report in reports}


@pytest.fixture(scope="module")
def first(catalogue):
    return run(catalogue)


def rows(lake, table, columns):
    return lake.read(table, version=get(lake).tables[table], columns=columns).sort_by(columns[0]).to_pylist()


def test_an_item_is_made_of_the_modalities_it_has(first):
    made_of = {row["item_id"]: row["modalities"] for row in rows(first[0], "semantic_ids", ["item_id", "modalities"])}
    assert made_of["i00"] == ["text", "image"]
    assert made_of["i03"] == made_of["i04"] == ["text", "graph"]
    assert made_of["i07"] == ["text", "image", "graph"]
    assert len(made_of) == NUM


def test_a_corrupt_picture_is_a_rejected_value_and_a_missing_one_is_not(first):
    lake, reports = first
    found = [row for row in rows(lake, "rejected_rows", ["rule", "target", "value", "row"]) if row["rule"] == "unreadable_picture"]
    assert [(row["target"], row["row"], row["value"][:4]) for row in found] == [("item_embeddings", -1, "i03:")]
    assert reports["embed_image"].details["rejected"] == 1
    assert reports["embed_image"].details["without_picture"] == 1


def test_a_refresh_embeds_new_pictures_only_and_moves_no_sid(first, catalogue):
    lake = first[0]
    before = {row["item_id"]: row["sid"] for row in rows(lake, "semantic_ids", ["item_id", "sid"])}
    frame = pl.read_parquet(catalogue / "items.parquet")
    new = pl.DataFrame({"id": ["i90"], "name": ["a yellow kettle"], "picture": [picture(90)]})
    pl.concat([frame, new]).write_parquet(catalogue / "items.parquet")
    lake, reports = run(catalogue, "refresh")
    after = {row["item_id"]: row["sid"] for row in rows(lake, "semantic_ids", ["item_id", "sid"])}
    assert reports["embed_image"].rows == {"item_embeddings": 1}
    assert {item: after[item] for item in before} == before
    assert set(after) - set(before) == {"i90"}
    rejected = [row for row in rows(lake, "rejected_rows", ["rule", "value"]) if row["rule"] == "unreadable_picture"]
    assert len(rejected) == 1


def test_pictures_named_by_path_are_those_of_the_same_bytes(catalogue, first, tmp_path):
    frame = pl.read_parquet(catalogue / "items.parquet").head(NUM)
    paths = []
    for item, data in frame.select("id", "picture").iter_rows():
        paths.append(None if data is None else f"{item}.png")
        if data is not None:
            (tmp_path / f"{item}.png").write_bytes(data)
    frame.with_columns(pl.Series("picture", paths)).write_parquet(tmp_path / "items.parquet")
    for name in ("graph.npy", "ids.txt", "recipe.toml"):
        (tmp_path / name).write_bytes((catalogue / name).read_bytes())
    lake, reports = run(tmp_path)
    assert reports["embed_image"].details["embedded"] == NUM - 2
    vectors = []
    for store in (first[0], lake):
        table = store.read("item_embeddings", version=get(store).tables["item_embeddings"])
        kept = pl.from_arrow(table).filter((pl.col("modality") == "image") & (pl.col("item_id") < "i30")).sort("item_id")
        vectors.append(kept["vector"].to_list())
    assert vectors[0] == vectors[1]


def test_an_image_encoder_without_a_picture_column_is_refused(catalogue, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE.replace('image = "picture"\n', ""))
    with pytest.raises(RecipeError, match=r"encoders\.image needs items\.image"):
        load_recipe(tmp_path / "recipe.toml")
