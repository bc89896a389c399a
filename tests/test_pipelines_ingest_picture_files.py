"""A picture is known by its content: what is overwritten is embedded again, what is only renamed is the same."""

import pytest
from PIL import Image
from source_files_sample import again, column, ingested, write

from sidlake.pipelines.ingest.picture_files import PictureFiles
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.releases import current, history
from sidlake.warehouse.tables import Warehouse

COLOURS = ["red", "blue", "green", "white", "pink", "black", "gold", "silver", "brown", "grey"]


def paint(folder, name, colour):
    (folder / "pictures").mkdir(exist_ok=True)
    Image.new("RGB", (24, 24), colour).save(folder / "pictures" / name)


def test_the_content_hash_follows_the_content_of_a_file_and_not_its_name(tmp_path):
    for name, colour in (("a.png", "red"), ("b.png", "red"), ("c.png", "blue")):
        paint(tmp_path, name, colour)
    write(
        tmp_path / "items.csv", [{"id": name, "name": "cup", "image": f"pictures/{name}"} for name in ("a.png", "b.png", "c.png")]
    )
    first, second, third = column(ingested(tmp_path, more='image = "image"'), "content_hash")
    assert first == second != third
    paint(tmp_path, "a.png", "blue")
    assert column(again(tmp_path), "content_hash") == [third, second, third]


@pytest.mark.parametrize("place", ["none.png", "../outside.png", "https://example.org/a.png", "pictures", "a\x00b"])
def test_what_is_no_file_below_the_folder_has_no_digest(tmp_path, place):
    (tmp_path / "in" / "pictures").mkdir(parents=True)
    (tmp_path / "outside.png").write_bytes(b"x")
    assert PictureFiles(tmp_path / "in").digest(place) is None


def test_an_overwritten_picture_is_embedded_again_though_no_source_has_changed(tmp_path):
    for colour in COLOURS:
        paint(tmp_path, f"{colour}.png", colour)
    write(
        tmp_path / "items.csv", [{"id": colour, "name": f"{colour} cup", "image": f"pictures/{colour}.png"} for colour in COLOURS]
    )
    (tmp_path / "recipe.toml").write_text(RECIPE)
    lake = Warehouse.create_or_open(tmp_path / "lake")
    run(lake, tmp_path, "retrain")
    assert run(lake, tmp_path, "refresh")["ingest"].skipped
    paint(tmp_path, "red.png", "yellow")
    reports = run(lake, tmp_path, "refresh")
    assert reports["embed_image"].details["embedded"] == 1
    assert len(history(lake)) == 2
    assert run(lake, tmp_path, "refresh")["ingest"].skipped
    assert current(lake).inputs["items"]["pictures"]


RECIPE = """
name = "painted"
[sources.items]
path = "items.csv"
[items]
source = "items"
item_id = "id"
title = "name"
image = "image"
[encoders.text]
precision = "float32"
[encoders.image]
[encoders.fusion.text]
dim = 4
[encoders.fusion.image]
dim = 4
[tokenizer]
widths = [4, 4, 4]
"""


def run(lake, folder, job):
    reports = run_job(RunContext.open(lake, load_recipe(folder / "recipe.toml"), run_id=new_run_id(), job=job))
    return {report.step: report for report in reports}
