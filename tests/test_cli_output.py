"""What a terminal would obey is shown by every command that prints data, and is JSON's own escapes with --json."""

import io
import json
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from sidlake.cli import output
from sidlake.cli.app import app, main
from sidlake.cli.tour import print_tour
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.reports.text import visible
from sidlake.warehouse.tables import Warehouse

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202eemit\r\b\u2066"
RECIPE = """
name = "evil"
[sources.items]
path = "items.parquet"
[[sources.items.rules]]
name = "test_row"
column = "id"
matches = "^T"
[items]
source = "items"
item_id = "id"
title = { column = "title" }
category = { column = "category" }
[encoders.text]
precision = "float32"
[encoders.fusion.text]
dim = 8
[tokenizer]
widths = [4, 4, 4]
"""


def publish(folder, rows, job):
    pl.DataFrame(rows).write_parquet(folder / "items.parquet")
    (folder / "recipe.toml").write_text(RECIPE)
    warehouse = Warehouse.create_or_open(folder / "w")
    ctx = RunContext.open(warehouse, load_recipe(folder / "recipe.toml"), run_id=new_run_id(), job=job)
    run_job(ctx, without=["report"])
    return warehouse


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Two releases of items whose ids, titles and categories are full of escapes, one row of which is refused."""
    folder = tmp_path_factory.mktemp("evil")
    rows = [{"id": f"I{row}{EVIL}", "title": f"cup {row}{EVIL}", "category": f"{EVIL}{row % 3}"} for row in range(30)]
    publish(folder, [*rows, {"id": f"T{EVIL}", "title": EVIL, "category": ""}], "retrain")
    rows[3]["title"] += " new"
    return publish(folder, [*rows, {"id": f"T{EVIL}", "title": EVIL, "category": ""}], "refresh")


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("show", f"I3{EVIL}"),
        ("neighbors", f"I3{EVIL}"),
        ("diff", "r000001", "r000002"),
        ("rejected",),
        ("query", "select item_id, title, category from items"),
        ("query", f'select 1 as "{EVIL.replace(chr(0x1B), "")}"'),
        ("lineage", f"I3{EVIL}"),
        ("check",),
        ("releases",),
    ],
    ids=lambda command: command[0],
)
def test_no_command_lets_an_escape_through(lake, command, as_json):
    extra = ["--json"] if as_json else []
    result = CliRunner().invoke(app, [*command, *extra, "--warehouse", str(lake.root)])
    printed = result.output
    assert printed
    assert OBEYED.findall(printed) == []
    if as_json and result.exit_code == 0:
        json.loads(result.stdout)


def test_an_error_that_names_an_argument_lets_none_through(lake, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sidlake", "show", f"nobody{EVIL}", "--warehouse", str(lake.root)])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert "nobody\\x1b[2J" in told
    assert OBEYED.findall(told) == []


def test_the_tour_lets_none_through(lake):
    stream = io.StringIO()
    print_tour(lake, Console(file=stream, soft_wrap=True))
    assert OBEYED.findall(stream.getvalue()) == []
    assert "\\x1b[2J" in stream.getvalue()


@given(st.text())
def test_whatever_a_text_holds_nothing_in_it_is_obeyed(value):
    assert OBEYED.findall(visible(value)) == []


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_letters_digits_and_signs_of_all_scripts_are_shown_as_they_are(value):
    assert visible(value) == value


def test_json_keeps_the_value(capsys):
    output.print_json({"title": EVIL, "emoji": "👩‍🚀"})
    assert json.loads(capsys.readouterr().out) == {"title": EVIL, "emoji": "👩‍🚀"}
