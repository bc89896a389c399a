"""The benchmark of verification writes a lawful release, and finds one hash however much of it is known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "verification", raising=False)
    from verification import measured

    return {row["what"]: row for row in measured(tmp_path, 300, 2_000, 100)}


def test_a_day_has_one_hash_whether_its_files_are_known_or_read(rows):
    assert rows["events"]["hash"] == rows["day"]["hash"] == rows["day, reread"]["hash"] != rows["first"]["hash"]
    assert rows["before"].keys() == {"what", "laws_s", "laws_cpu_s", "hash_s", "hash_cpu_s"}
