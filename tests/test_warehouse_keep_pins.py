"""Pins: names for releases, moved in one commit, and what a name may be."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from sidlake.errors import NotFoundError, ReleaseConflict, WarehouseBusy
from sidlake.warehouse.catalog import query
from sidlake.warehouse.keep.pins import checked_name, pin, pins, resolve, unpin
from sidlake.warehouse.releases import find, get, publish
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))


@pytest.fixture
def warehouse(tmp_path):
    """Two releases, r000001 and r000002."""
    warehouse = Warehouse.create_or_open(tmp_path)
    for parent, count in ((None, 12), ("r000001", 15)):
        publish(warehouse, SAMPLE.draft(SAMPLE.write(warehouse, count)), expected_parent=parent)
    return warehouse


def test_a_pin_is_another_name_of_a_release(warehouse):
    made = pin(warehouse, "prod", "r000001", reason="fares best", set_by="ann@shop")
    assert get(warehouse, "prod") == find(warehouse, "prod") == get(warehouse, "r000001")
    assert pins(warehouse) == [made]
    assert (made.set_by, made.reason, made.number) == ("ann@shop", "fares best", 0)


def test_moving_a_pin_leaves_one_in_force_and_its_past_in_the_table(warehouse):
    for release_id in ("r000001", "r000002"):
        pin(warehouse, "prod", release_id)
    pin(warehouse, "canary", "r000001")
    assert [(one.name, one.release_id) for one in pins(warehouse)] == [("canary", "r000001"), ("prod", "r000002")]
    assert sorted(warehouse.read("pins")["number"].to_pylist()) == [0, 1, 2]


def test_a_pin_taken_away_no_longer_resolves_and_may_come_back(warehouse):
    pin(warehouse, "prod", "r000001")
    assert unpin(warehouse, "prod").release_id == "r000001"
    assert (pins(warehouse), resolve(warehouse, "prod")) == ([], None)
    with pytest.raises(NotFoundError, match=r"no pin 'prod'.*none"):
        unpin(warehouse, "prod")
    pin(warehouse, "prod", "r000002")
    assert resolve(warehouse, "prod") == "r000002"


def test_a_pin_needs_a_release_that_exists(warehouse, tmp_path):
    with pytest.raises(NotFoundError, match="r000009"):
        pin(warehouse, "prod", "r000009")
    with pytest.raises(NotFoundError, match="r000001"):
        pin(Warehouse.create_or_open(tmp_path / "empty"), "prod", "r000001")
    assert not warehouse.exists("pins")


@pytest.mark.parametrize("name", ["", "current", "Current", "r000001", "g0001", "1st", "a b", "../up", "a" * 64, "prod\n"])
def test_a_name_that_could_be_taken_for_something_else_is_refused(name):
    with pytest.raises(ValueError, match="cannot name a pin"):
        checked_name(name)


def test_an_unknown_release_is_answered_with_ids_and_pins(warehouse):
    pin(warehouse, "prod", "r000001")
    with pytest.raises(NotFoundError, match=r"r000001, r000002, prod"):
        get(warehouse, "production")


def test_of_two_who_move_pins_at_once_one_is_refused(warehouse):
    pin(warehouse, "prod", "r000001")
    head = warehouse.version("pins")
    pin(warehouse, "prod", "r000002")
    row = warehouse.read("pins").slice(0, 1)
    with pytest.raises(ReleaseConflict, match="pins moved"):
        warehouse.append_at("pins", row, head=head, run_id="late")
    assert resolve(warehouse, "prod") == "r000002"


def test_a_pin_waits_for_nobody_and_says_who_writes(warehouse):
    with warehouse.writing("refresh-1"), pytest.raises(WarehouseBusy, match="refresh-1"):
        pin(warehouse, "prod", "r000001")


def test_analysts_see_the_pins_in_force(warehouse):
    for name, release_id in (("prod", "r000001"), ("prod", "r000002"), ("old", "r000001")):
        pin(warehouse, name, release_id)
    unpin(warehouse, "old")
    rows = query(warehouse, "SELECT name, release_id FROM pins").to_pylist()
    assert rows == [{"name": "prod", "release_id": "r000002"}]
