from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sidlake.cli.app import app
from sidlake.generative.exports.release_files import KINDS


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "lake"
    shutil.copytree(Path(__file__).with_name("data") / "release-0.1", folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_has_a_command_that_names_its_files(lake, tmp_path, kind):
    command = ["export", kind, str(tmp_path / "out"), "--release", "r000001", "-w", str(lake), "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["release"] == "r000001"
    assert sorted(told["files"]) == sorted(str(path) for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_files_are_told_with_their_sizes(lake, tmp_path):
    command = ["export", "index-json", str(tmp_path / "out"), "--numbered", "-w", str(lake)]
    output = CliRunner().invoke(app, command, catch_exceptions=False).output
    size = (tmp_path / "out" / "sidlake.item2id").stat().st_size
    assert f"sidlake.item2id: {size:,} bytes" in output
    assert "index-json of release r000002" in output
