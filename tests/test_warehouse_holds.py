"""Holds: after a rollback nothing is published until somebody lifts the hold, or says for one run that it may."""

from __future__ import annotations

import pytest
import warehouse_sample as sample

from sidlake.errors import HoldError, NotFoundError
from sidlake.warehouse.holds import hold_by, lift
from sidlake.warehouse.releases import current, history, publish, rollback
from sidlake.warehouse.tables import Warehouse


@pytest.fixture
def rolled_back(tmp_path):
    """A warehouse whose second release was rolled back."""
    warehouse = Warehouse.create_or_open(tmp_path)
    publish(warehouse, sample.draft(sample.write(warehouse, 12)), expected_parent=None)
    publish(warehouse, sample.draft(sample.write(warehouse, 15)), expected_parent="r000001")
    rollback(warehouse, "r000001", "three were wrong", published_by="ann@desk")
    return warehouse


def test_a_rollback_holds_with_its_reason_from_the_same_commit_on(rolled_back):
    hold = hold_by(rolled_back, current(rolled_back))
    assert (hold.release_id, hold.set_by, hold.reason) == ("r000003", "ann@desk", "three were wrong")
    assert not rolled_back.exists("lifted_holds")


def test_a_run_that_would_publish_is_refused_with_who_why_and_what_ends_it(rolled_back):
    tables = sample.write(rolled_back, 15)
    with pytest.raises(HoldError, match=r"held by rollback r000003 since .* UTC, by ann@desk: three were wrong\.") as failure:
        publish(rolled_back, sample.draft(tables), expected_parent="r000003")
    assert "sidlake resume --reason" in str(failure.value)
    assert failure.value.details["release_id"] == "r000003"
    assert len(history(rolled_back)) == 3


def test_a_lifted_hold_holds_no_more_and_is_kept_with_its_reason(rolled_back):
    lift(rolled_back, current(rolled_back), reason=" the source was mended ", lifted_by="bob@desk")
    assert hold_by(rolled_back, current(rolled_back)) is None
    (row,) = rolled_back.read("lifted_holds").to_pylist()
    assert (row["release_id"], row["lifted_by"], row["reason"]) == ("r000003", "bob@desk", "the source was mended")
    assert publish(rolled_back, sample.draft(sample.write(rolled_back, 15)), expected_parent="r000003").reason == "test"


def test_a_run_told_to_publish_nevertheless_does_and_says_why_and_the_hold_is_over(rolled_back):
    draft = sample.draft(sample.write(rolled_back, 15))
    release = publish(rolled_back, draft, expected_parent="r000003", despite_hold="the files were mended")
    assert release.reason == "test (despite the hold of r000003: the files were mended)"
    assert hold_by(rolled_back, current(rolled_back)) is None


def test_the_next_rollback_holds_again(rolled_back):
    lift(rolled_back, current(rolled_back), reason="mended")
    again = rollback(rolled_back, "r000002", "not mended")
    assert hold_by(rolled_back, again).reason == "not mended"


def test_lifting_needs_a_hold_and_a_reason(rolled_back):
    with pytest.raises(ValueError, match="needs a reason"):
        lift(rolled_back, current(rolled_back), reason=" ")
    lift(rolled_back, current(rolled_back), reason="mended")
    with pytest.raises(NotFoundError, match="no hold is in force: the current release is r000003, rollback"):
        lift(rolled_back, current(rolled_back), reason="mended")


def test_before_the_first_release_there_is_no_hold(tmp_path):
    warehouse = Warehouse.create_or_open(tmp_path)
    assert hold_by(warehouse, current(warehouse)) is None
    with pytest.raises(NotFoundError, match="nothing has been published"):
        lift(warehouse, current(warehouse), reason="mended")
