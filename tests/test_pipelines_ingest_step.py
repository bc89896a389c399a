"""The ingest step says what a person should know: files that it left out or that are gone, items whose rows disagree."""

import pytest
from source_files_sample import recipe_in, write

from sidlake.errors import RecipeError
from sidlake.pipelines.ingest.step import ingest_sources
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.tables import Warehouse

NAMES = ["red cup", "blue lamp", "green bag", "white pen", "pink vase", "black box", "gold bell", "old clock"]
MORE = """
[encoders.text]
precision = "float32"
[encoders.fusion.text]
dim = 4
[tokenizer]
widths = [4, 4, 4]
"""


def run(folder, job):
    ctx = RunContext.open(
        Warehouse.create_or_open(folder / "lake"), load_recipe(folder / "recipe.toml"), run_id=new_run_id(), job=job
    )
    return next(report for report in run_job(ctx) if report.step == "ingest")


def test_files_that_are_left_out_or_gone_and_titles_that_disagree_are_told(tmp_path):
    recipe_in(tmp_path, "days", title='{ column = "name", pick = "most_common" }', more=MORE)
    write(tmp_path / "days" / "1.csv", [{"id": name, "name": name} for name in NAMES])
    write(tmp_path / "days" / "2.csv", [{"id": NAMES[0], "name": "red mug"}])
    for name in ("a.xlsx", "b.xlsx", "c.xlsx", ".d.csv"):
        (tmp_path / "days" / name).write_bytes(b"")
    first = run(tmp_path, "retrain").details
    assert first["items_left_out"] == "4 files (.d.csv, a.xlsx, b.xlsx, ...)"
    assert first["several_titles"] == 1
    (tmp_path / "days" / "2.csv").unlink()
    later = run(tmp_path, "refresh").details
    assert later["items_gone"] == "1 files (2.csv)"
    assert "several_titles" not in later


def test_a_type_of_a_column_that_nothing_reads_is_refused(tmp_path):
    write(tmp_path / "items.csv", [{"id": "a", "name": "x", "price": 1}])
    recipe = recipe_in(tmp_path, source="types = { nmae = { html = true } }")
    ctx = RunContext.open(Warehouse.create_or_open(tmp_path / "lake"), recipe, run_id="run", job="retrain")
    with pytest.raises(RecipeError, match=r"types names the column 'nmae', .* it reads \['id', 'name'\]"):
        ingest_sources(ctx)
