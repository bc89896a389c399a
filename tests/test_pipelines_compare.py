"""Comparing methods: measured like what is published, kept, and never published itself."""

import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sidlake.cli.app import app
from sidlake.errors import NotFoundError
from sidlake.pipelines.compare import compare, compare_method, method_paths
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.settings.methods import SHIPPED_RECIPES, shipped_methods
from sidlake.warehouse.releases import current
from sidlake.warehouse.tables import Warehouse

PLAIN = '[encoders.fusion.text]\ndim = 16\n[tokenizer]\nkind = "residual_kmeans"\nwidths = [8, 8, 8]\n'
DIGITS = PLAIN + 'uniqueness = "append"\ndigits = 64\n'
RAW = PLAIN + 'uniqueness = "none"\n'


@pytest.fixture
def methods(shop, tmp_path):
    folder = tmp_path / "methods"
    folder.mkdir()
    for name, text in {"plain": PLAIN, "digits": DIGITS, "raw": RAW}.items():
        (folder / f"{name}.toml").write_text(f'name = "{name}"\nsource = "a test"\n' + text)
    return folder


def test_methods_are_measured_on_one_catalogue_and_share_its_vectors(shop, methods, tmp_path):
    rows = compare(shop.recipe, [methods / f"{name}.toml" for name in ("plain", "digits", "raw")], tmp_path / "lake")
    plain, digits, raw = rows
    assert [row.status for row in rows] == ["ok"] * 3
    assert (plain.widths, digits.widths) == ("8x8x8", "8x8x8x64")
    assert plain.unique_share == digits.unique_share == 1.0 > raw.unique_share
    assert plain.raw_collision_rate == digits.raw_collision_rate == pytest.approx(1 - raw.unique_share)
    assert plain.moved_share > 0 == raw.moved_share
    assert plain.mean_move_cost > digits.mean_move_cost == 0.0  # a digit changes no vector
    assert digits.embed_seconds < plain.embed_seconds
    assert 0 < plain.ehr_reconstructed <= 1
    kept = {row["method"]: row for row in pq.read_table(tmp_path / "lake/comparisons/online_retail/comparison.parquet").to_pylist()}
    assert sorted(kept) == ["digits", "plain", "raw"]
    assert kept["plain"]["ehr_reconstructed"] == plain.ehr_reconstructed


def test_a_comparison_publishes_nothing(shop, methods, tmp_path):
    compare_method(shop.recipe, methods / "plain.toml", tmp_path / "lake")
    assert current(Warehouse(tmp_path / "lake/comparisons/online_retail")) is None
    assert not (tmp_path / "lake" / "delta").exists()


def test_a_method_that_the_catalogue_cannot_serve_says_so_and_the_others_go_on(shop, methods, tmp_path):
    (methods / "path.toml").write_text('name = "path"\nsource = "a test"\n' + PLAIN.replace("residual_kmeans", "category_index"))
    (methods / "wide.toml").write_text('name = "wide"\nsource = "a test"\n' + PLAIN.replace("[8, 8, 8]", "[4096]"))
    rows = compare(shop.recipe, [methods / f"{name}.toml" for name in ("path", "wide", "plain")], tmp_path / "lake")
    assert [row.status.split(":")[0] for row in rows] == ["FitError", "FitError", "ok"]
    assert "categories_N" in rows[0].status


def test_a_method_that_does_not_exist_is_named_with_those_that_do(shop):
    with pytest.raises(NotFoundError, match="no method 'tigger'"):
        method_paths(shop.recipe, ["tigger"])


def test_installed_methods_are_compared_in_any_folder(shop, tmp_path):
    paths = method_paths(tmp_path / "shop.toml", ["grid", "onerec"])
    assert paths == [SHIPPED_RECIPES / "methods" / f"{name}.toml" for name in ("grid", "onerec")]
    assert method_paths(tmp_path / "shop.toml") == list(shipped_methods().values())
    assert load_recipe(shop.recipe, method=paths[0]).method.name == "grid"


def test_a_folder_of_methods_beside_the_recipe_comes_before_the_installed_ones(methods, tmp_path):
    own = (methods / "plain.toml").rename(methods / "grid.toml")
    assert method_paths(tmp_path / "shop.toml", ["grid", "onerec"]) == [own, SHIPPED_RECIPES / "methods" / "onerec.toml"]
    assert [path.stem for path in method_paths(tmp_path / "shop.toml")] == ["digits", "grid", "raw"]


def test_imported_sids_come_before_an_installed_method_of_their_name(tmp_path):
    (tmp_path / "lake" / "assignments").mkdir(parents=True)
    (given := tmp_path / "lake" / "assignments" / "letter.parquet").touch()
    assert method_paths(tmp_path / "shop.toml", ["letter"], warehouse=tmp_path / "lake") == [given]


def test_a_recipe_may_name_an_installed_method_and_its_own_file_comes_first(shop, methods, tmp_path):
    recipe = tmp_path / "shop.toml"
    recipe.write_text('method = "methods/grid.toml"\n' + shop.recipe.read_text())
    assert load_recipe(recipe).method.source.startswith("GRID")
    (methods / "plain.toml").rename(methods / "grid.toml")
    assert load_recipe(recipe).method.source == "a test"


def test_the_command_line_prints_one_json_value(shop, methods, tmp_path):
    command = ["compare", str(methods / "plain.toml"), "-r", str(shop.recipe), "--json", "-w", str(tmp_path / "lake")]
    done = CliRunner().invoke(app, command)
    (row,) = json.loads(done.stdout)
    assert (row["method"], row["status"], row["unique_share"]) == ("plain", "ok", 1.0)


def test_a_recipe_that_names_a_method_is_made_by_it(shop, methods, tmp_path):
    recipe = tmp_path / "shop.toml"
    text = shop.recipe.read_text()
    recipe.write_text('method = "methods/digits.toml"\n' + text)
    loaded = load_recipe(recipe)
    assert (loaded.method.name, loaded.tokenizer.uniqueness, loaded.tokenizer.digits) == ("digits", "append", 64)
    assert loaded.encoders.behaviour is not None  # the recipe's own keys stay
