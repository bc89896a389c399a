"""Random compositions, briefly: whatever acts follow one another, every law holds. benchmarks/compositions.py looks longer.

The draws are the same in every run, so that the suite is: what other draws find becomes a case of test_laws_compositions_kept.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from composing.acts import ACTS, finish, forget_clock, play
from composing.model import Book, Published, World
from composing.sources import begin
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "compositions.py"
NUMBERS = st.integers(0, 2**16 - 1)


class Compositions(RuleBasedStateMachine):
    """A tiny shop after its first retrain, and whatever is done to it then."""

    @initialize(kind=st.sampled_from(["list", "missing", "quiet", "sales"]))
    def open(self, kind):
        self.folder = Path(tempfile.mkdtemp())
        self.state = begin(self.folder / "shop", kind)
        self.do("retrain", override=0)

    def do(self, act, /, **numbers):
        assert play(self.state, (act, numbers)) == []

    def teardown(self):
        try:
            if hasattr(self, "state"):
                assert finish(self.state) == []
        finally:
            forget_clock()
            shutil.rmtree(self.folder, ignore_errors=True)


def _add(name):
    function = ACTS[name][0]
    wanted = function.__code__.co_varnames[1 : function.__code__.co_argcount]

    def act(self, **numbers):
        self.do(name, **numbers)

    act.__name__ = name
    setattr(Compositions, name, rule(**dict.fromkeys(wanted, NUMBERS))(act))


for _name in ACTS:
    _add(_name)

TestCompositions = pytest.mark.slow(Compositions.TestCase)
TestCompositions.settings = settings(
    max_examples=10, stateful_step_count=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.slow
def test_the_driver_plays_sequences_in_processes_that_may_die_and_finds_nothing_wrong():
    command = [sys.executable, str(FILE), "--sequences", "3", "--acts", "12", "--seed", "7", "--json"]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (result["sequences"], result["acts"], result["failures"]) == (3, 36, 0)


def test_the_model_tells_a_sid_that_changed_hands_and_an_item_that_changed_sids():
    book = Book()
    first = Published("g0001", {"I00": (1, 2), "I01": (1, 3)}, {}, {}, "a")
    assert book.add("r000001", first) == []
    assert book.add("r000002", Published("g0001", {"I01": (1, 2)}, {}, {}, "b")) == [
        "r000002: (1, 2) of g0001 was published for I00, now it is I01's",
        "r000002: I01 was published in g0001 as (1, 3), now it is (1, 2)",
    ]
    assert book.add("r000003", Published("g0002", {"I01": (1, 2)}, {}, {}, "c")) == []


def test_the_model_retires_quiet_items_with_their_events_and_brings_back_all_of_them():
    day = 24 * 60
    world = World("sales", files={"a": [("u0", "I00", 0, "cup"), ("u0", "I01", 1, "mug")], "b": [("u1", "I01", 9 * day, "mug")]})
    assert world.items({"I00": "cup"}) == {"I01": "mug"}
    assert world.events({"I01": "mug"}) == {("u0", "I01", 1): 1, ("u1", "I01", 9 * day): 1}
    world.files["c"] = [("u1", "I00", 9 * day + 1, "a cup")]
    assert world.items({"I01": "mug"}) == {"I00": "a cup", "I01": "mug"}
    assert world.events({"I00": "a cup"}) == {("u0", "I00", 0): 1, ("u1", "I00", 9 * day + 1): 1}
