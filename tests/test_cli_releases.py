"""The commands about releases, as a person types them, on the stored releases of the first version."""

from __future__ import annotations

import json
import shutil
from inspect import signature
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from sidlake.cli.app import app
from sidlake.cli.export import export
from sidlake.errors import NotFoundError

EVERY = {
    f"{group}{one.name or one.callback.__name__}": one.callback
    for group, typer in (("", app), ("export ", export))
    for one in typer.registered_commands
}
RUN_UNTIL_STOPPED = ("ui", "serve")


@pytest.fixture(scope="module")
def sidlake(tmp_path_factory):
    """Return a function that runs a command on a warehouse of two releases, r000001 and r000002, and later a third."""
    lake = tmp_path_factory.mktemp("cli") / "lake"
    shutil.copytree(Path(__file__).with_name("data") / "release-0.1", lake)

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [*arguments, "--warehouse", str(lake)], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.output

    run.folder = lake
    return run


def test_show_takes_a_release_or_an_item(sidlake):
    assert "refresh small" in sidlake("show", "r000002")
    assert json.loads(sidlake("show", "current", "--json"))["readable"] is True
    assert "shared with" in sidlake("show", "I000")
    with pytest.raises(NotFoundError, match="no item or SID 'r000001'"):
        sidlake("show", "--item", "r000001")


def test_diff_is_told_in_words_and_as_json(sidlake):
    text = sidlake("diff", "r000001", "r000002")
    assert "items  26 to 30: 4 added, 0 retired, 0 with changed content" in text
    assert "SIDs   26 kept, 0 moved, 4 added, 0 retired" in text
    assert "inputs.items.sha256" in text
    found = json.loads(sidlake("diff", "r000001", "r000002", "--json"))
    assert (found["items"]["added"], found["sids"]["kept_prefixes"]) == (4, [26, 26, 26])


def test_lineage_tells_the_chain_of_an_item_and_of_a_release(sidlake):
    assert "r000001" in sidlake("lineage", "I000")
    chain = json.loads(sidlake("lineage", "r000002", "--json"))
    assert (chain["kind"], chain["parents"]) == ("release", ["r000001"])


def test_a_pin_is_set_listed_used_and_taken_away(sidlake):
    assert "no pins" in sidlake("pins")
    assert sidlake("pin", "prod", "r000001", "--reason", "fares best") == "prod points at r000001\n"
    assert "fares best" in sidlake("pins")
    assert [one["release_id"] for one in json.loads(sidlake("releases", "--json")) if one["pins"] == ["prod"]] == ["r000001"]
    assert "r000001  published" in sidlake("show", "prod")
    assert "before at r000001" in sidlake("pin", "prod", "r000002")
    assert sidlake("unpin", "prod") == "prod no longer points at r000002\n"


def test_a_pin_is_a_name_for_whoever_opens_the_catalogue_with_duckdb_alone(sidlake):
    lake = sidlake.folder

    def rows(sql):
        with duckdb.connect(str(lake / "catalog.duckdb"), read_only=True) as connection:
            return connection.sql(sql).fetchall()

    sidlake("pin", "stable", "r000001")
    assert rows("select count(*) > 0 from semantic_ids_at('stable')") == [(True,)]
    sidlake("unpin", "stable")
    assert rows("select name from pins where name = 'stable'") == []


def test_names_and_numbers_that_are_none_exit_2(sidlake):
    sidlake("pin", "r1", code=2)
    sidlake("rollback", "r000001", code=2)
    sidlake("rollback", "r000001", "--reason", " ", code=2)
    sidlake("rollback", "current", "--reason", "no", code=2)
    sidlake("vacuum", "--keep", "0", code=2)
    sidlake("resume", "--reason", " ", code=2)


def test_rollback_then_vacuum_free_what_only_the_release_in_between_had(sidlake):
    assert "r000003 is current: the content of r000001 (was r000002)" in sidlake("rollback", "r000001", "--reason", "as it was")
    assert "become unreadable: none" in sidlake("vacuum", "--dry-run")
    plan = json.loads(sidlake("vacuum", "--keep", "1", "--json"))
    assert (list(plan["kept"]), plan["unreadable"]) == (["r000003"], [])
    assert "freed 0 files, 0 bytes" in sidlake("vacuum", "--older-than", "0")


def test_a_rollback_holds_runs_until_they_may_resume(sidlake):
    assert "held by rollback r000003" in sidlake("status")
    assert json.loads(sidlake("resume", "--reason", "mended", "--json"))["reason"] == "as it was"
    assert json.loads(sidlake("status", "--json"))["hold"] is None
    with pytest.raises(NotFoundError, match="no hold is in force"):
        sidlake("resume", "--reason", "again")


@pytest.mark.parametrize(("name", "command"), EVERY.items(), ids=EVERY)
def test_every_command_shows_an_example_of_itself_and_takes_json(name, command):
    assert f"Example: sidlake {name}" in (command.__doc__ or "")
    assert ("as_json" in signature(command).parameters) is (name not in RUN_UNTIL_STOPPED)
