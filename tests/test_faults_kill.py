"""Kills: the driver of benchmarks/kill.py, briefly, and proof that it can tell a torn warehouse from a whole one."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "kill.py"
BEFORE = {
    "releases": [["r000001", "aa"], ["r000002", "bb"]],
    "release": "r000002",
    "items": [["a", "A", 1.0], ["b", "B", 1.0]],
    "events": [["u", "a", "2026-01-01 00:00:00"]],
    "sids": [["a", "<a_1>"], ["b", "<a_2>"]],
    "in_catalogue": [2, 2],
    "twice": 0,
    "stale": False,
    "laws": [],
    "wrong": [],
}


@pytest.mark.slow
def test_thirty_processes_killed_at_random_moments_leave_whole_releases_and_the_next_run_finishes():
    command = [sys.executable, str(FILE), "--kills", "30", "--finish-every", "10", "--seed", "5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert {name: result[name] for name in ("torn", "lost", "duplicated", "law_failures")} == dict.fromkeys(
        ("torn", "lost", "duplicated", "law_failures"), 0
    ), result["notes"]
    assert (result["kills"], result["recovered"]) == (30, 3)
    assert 0 < result["new_release_at_kill"] < 30


@pytest.fixture(scope="module")
def kill_shop():
    spec = importlib.util.spec_from_file_location("kill_shop", FILE.with_name("kill_shop.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def judged(kill_shop, operation, now, **ending):
    """Return what is found wrong with BEFORE changed by `now`, in a shop whose sources are what BEFORE holds."""
    items = {item: (title, price) for item, title, price in BEFORE["items"]}
    shop = kill_shop.Shop(Path(), [], items, [tuple(event) for event in BEFORE["events"]], {"r000001": BEFORE})
    return {name: n for name, n in kill_shop.judge(operation, BEFORE, BEFORE | now, shop, **ending).items() if n}


PUBLISHED = {"releases": [*BEFORE["releases"], ["r000003", "cc"]], "release": "r000003"}


@pytest.mark.parametrize(
    ("operation", "now", "found"),
    [
        ("refresh", {}, {}),
        ("refresh", PUBLISHED, {}),
        ("rollback", PUBLISHED, {}),
        ("refresh", {"wrong": ["r000002: another content hash"]}, {"torn": 1}),
        ("refresh", {"releases": BEFORE["releases"][1:]}, {"torn": 2, "not_recovered": 1}),
        ("vacuum", PUBLISHED, {"not_recovered": 1}),
        ("refresh", {"laws": ["every item has a SID: 1 times not"]}, {"law_failures": 1}),
        ("refresh", {"in_catalogue": [1, 1]}, {"law_failures": 1}),
        ("refresh", {"events": []}, {"lost": 1}),
        ("refresh", PUBLISHED | {"events": BEFORE["events"] * 2}, {"duplicated": 1}),
        ("release", {"items": [["a", "A", 1.0], ["b", "B", 2.0]]}, {"lost": 1, "duplicated": 1}),
        ("retrain", PUBLISHED | {"sids": [["a", "<a_9>"]]}, {"lost": 1}),
        ("refresh", PUBLISHED | {"sids": [["a", "<a_1>"], ["b", "<a_3>"]]}, {"law_failures": 1}),
        ("refresh", {"twice": 2}, {"duplicated": 2}),
    ],
)
def test_the_judge_finds_what_is_wrong_and_nothing_else(kill_shop, operation, now, found):
    assert judged(kill_shop, operation, now) == found


def test_an_operation_that_ended_without_a_release_has_not_recovered(kill_shop):
    assert judged(kill_shop, "refresh", {}, finished=True) == {"not_recovered": 1}


def test_a_catalogue_may_be_old_after_a_kill_but_not_after_a_run_that_ended(kill_shop):
    assert judged(kill_shop, "refresh", {"stale": True}) == {}
    assert judged(kill_shop, "refresh", PUBLISHED | {"stale": True}, ended=True) == {"law_failures": 1}
