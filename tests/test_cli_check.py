"""`sidlake check`, and `--override`: what they print, and what they exit with."""

import json
import re
import shutil
from pathlib import Path

import pytest
from shop_sample import write_recipe

from sidlake.cli import app as cli
from sidlake.warehouse.releases import history
from sidlake.warehouse.tables import Warehouse

IMPOSSIBLE = '\n[[gates]]\nmetric = "raw_largest_group"\nmaximum = 1\n'


@pytest.fixture
def sidlake(shop, tmp_path, monkeypatch, capsys):
    """The command line on a copy of the small shop: returns exit code, standard output and standard error."""
    shutil.copytree(shop.recipe.parent, tmp_path / "source")
    shutil.copytree(shop.warehouse, tmp_path / "w")
    monkeypatch.setenv("SIDLAKE_WAREHOUSE", str(tmp_path / "w"))
    monkeypatch.setenv("SIDLAKE_RECIPE", str(tmp_path / "source" / "shop.toml"))

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["sidlake", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return run


def test_a_release_that_holds_is_said_to_pass_with_every_verdict(sidlake):
    code, out, _ = sidlake("check", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["release"], found["verdict"], found["broken"], found["override"]) == ("r000001", "pass", [], None)
    assert {"metric", "level", "value", "threshold", "verdict", "reason", "examples", "remedy"} == set(found["metrics"][0])


def test_a_release_whose_file_was_changed_since_is_broken_and_the_file_is_named(sidlake, tmp_path):
    lake = Warehouse(tmp_path / "w")
    path = Path(lake.files("semantic_ids", version=history(lake)[-1].tables["semantic_ids"])[0])
    path.write_bytes(path.read_bytes() + b"more")
    code, out, _ = sidlake("check")
    assert code == 1
    assert "r000001 of generation g0001: broken" in out
    assert path.name in out


def test_an_unknown_release_is_bad_usage(sidlake):
    assert sidlake("check", "r000099")[0] == 2


def test_an_override_without_a_reason_is_bad_usage(sidlake):
    code, _, err = sidlake("run", "retrain", "--override", " ")
    assert (code, "--override needs a reason" in err) == (2, True)


def test_a_refusal_says_why_and_what_to_try_and_an_override_publishes_it_on_record(sidlake, tmp_path):
    write_recipe(tmp_path / "source", extra=IMPOSSIBLE)
    code, _, err = sidlake("run", "refresh")
    assert code == 1
    (largest,) = re.findall(r"raw_largest_group: (\d+) is above the maximum 1; try: look at the items of the largest group", err)
    assert f"    {largest} items of codes " in err
    assert len(history(Warehouse(tmp_path / "w"))) == 1

    assert sidlake("run", "refresh", "--override", "the shop moves house")[0] == 0
    release = history(Warehouse(tmp_path / "w"))[-1]
    assert (release.release_id, release.override) == ("r000002", "the shop moves house")
    assert "published against its gates by " in sidlake("status")[1]
    code, out, _ = sidlake("check")
    assert (code, "published against its gates: the shop moves house" in out) == (1, True)
