"""`sidlake` without a command says what comes next in this folder, whatever lies there."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from sidlake.cli.app import app
from sidlake.warehouse.releases import publish
from sidlake.warehouse.tables import Warehouse

COMMAND = str(Path(sys.executable).with_name("sidlake"))
SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Return what the command says in a new folder, after what is asked was put there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIDLAKE_WAREHOUSE", raising=False)

    def say():
        result = CliRunner().invoke(app, [])
        assert result.exit_code == 0, result.output
        return result.output

    return say


def test_in_an_empty_folder_it_asks_for_files(said):
    assert "no recipe and no files here" in said()
    assert "sidlake init FILES" in said()


def test_where_there_are_files_it_proposes_a_recipe_of_them(said, tmp_path):
    (tmp_path / "sales.CSV").touch()
    (tmp_path / "notes.txt").touch()
    assert "sidlake init sales.CSV" in said()


def test_where_there_is_a_recipe_it_is_tried_and_run(said, tmp_path):
    (tmp_path / "recipe.toml").touch()
    output = said()
    assert "sidlake validate recipe.toml" in output
    assert "sidlake run retrain" in output


def test_where_there_is_a_warehouse_without_a_release_nothing_is_said_of_one(said, tmp_path):
    Warehouse.create_or_open(tmp_path / "lake")
    assert "no recipe and no files here" in said()


def test_where_there_is_a_release_it_is_named_and_refreshed(said, tmp_path):
    lake = Warehouse.create_or_open(tmp_path / "lake")
    publish(lake, SAMPLE.draft(SAMPLE.write(lake)), expected_parent=None)
    output = said()
    assert "release r000001" in output
    assert "sidlake run refresh" in output


def test_the_options_of_the_whole_command_are_still_told():
    for option in ("--help", "--version", "--show-completion"):
        assert option in CliRunner().invoke(app, ["--help"]).output
    assert CliRunner().invoke(app, ["--version"]).output.startswith("sidlake ")


def test_commands_take_the_recipe_of_the_folder_they_are_started_in(tmp_path):
    (tmp_path / "recipe.toml").write_text("name = 3")
    env = {name: value for name, value in os.environ.items() if not name.startswith("SIDLAKE_")}
    there, elsewhere = (
        subprocess.run([COMMAND, "run", "retrain"], cwd=folder, env=env, capture_output=True, text=True)
        for folder in (tmp_path, tmp_path.parent)
    )
    assert "recipe recipe.toml" in there.stderr
    assert "sidlake init FILES" in elsewhere.stderr
