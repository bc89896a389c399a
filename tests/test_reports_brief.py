"""What `status` and `diff` print fits one screen, whatever a release holds, and says what it leaves out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sidlake.cli.app import app
from sidlake.quality.gates import REMEDIES
from sidlake.reports.brief import HEIGHT, diff_lines, status_lines
from sidlake.warehouse.diff import ItemChanges, MetricChange, ReleaseDiff, SidChanges

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
metrics = st.sampled_from([*REMEDIES, "metric_of_a_long_name_that_nobody_knows_" * 3])
levels = st.one_of(st.none(), st.integers(0, 30))
values = st.one_of(st.none(), st.floats())
finding = st.fixed_dictionaries(
    {"metric": metrics, "level": levels, "value": values, "threshold": values}
    | {"verdict": st.sampled_from(["warn", "refuse"]), "reason": st.one_of(st.none(), words)}
)
table = st.fixed_dictionaries({"table": metrics, "rows": st.integers(0, 10**12), "version": st.integers(0, 999)})
state = st.fixed_dictionaries(
    {
        "release": st.just("r000002"), "generation": words, "created_at": words, "verdict": words, "published_by": words,
        "override": st.one_of(st.none(), words), "hold": st.one_of(st.none(), words), "tables": st.lists(table, max_size=20),
        "rejected": st.lists(st.fixed_dictionaries({"target": words, "rule": words, "rows": st.integers(0, 10**12)}), max_size=40),
        "quality": st.lists(finding, max_size=200),
        "models": st.lists(st.fixed_dictionaries(
            {"model": words, "split": st.sampled_from(["valid", "test"]), "metric": st.just("recall@10"), "value": st.floats()}
        ), max_size=20),
    }
)  # fmt: skip
former = st.one_of(st.just({}), st.fixed_dictionaries({"release": words, "rows": st.dictionaries(metrics, st.integers(0, 10**12))}))
change = st.builds(
    MetricChange, metric=metrics, level=levels, before=values, after=values, verdict_before=st.one_of(st.none(), words),
    verdict_after=st.one_of(st.none(), words),
)  # fmt: skip
changes = st.builds(
    ReleaseDiff, before=st.just("r000001"), after=st.just("r000002"), generation_before=words, generation_after=words,
    same_content=st.booleans(),
    items=st.builds(
        ItemChanges, before=st.integers(0), after=st.integers(0), added=st.integers(0), retired=st.integers(0),
        changed=st.integers(0),
        examples=st.fixed_dictionaries({kind: st.lists(words, max_size=5) for kind in ("added", "retired", "changed")}),
    ),
    sids=st.builds(
        SidChanges, same_generation=st.booleans(), kept=st.integers(0), moved=st.integers(0), added=st.integers(0),
        retired=st.integers(0), kept_prefixes=st.lists(st.integers(0), max_size=26),
        examples=st.lists(st.fixed_dictionaries({"item_id": words, "before": words, "after": words}), max_size=5),
    ),
    metrics=st.lists(change, max_size=200),
    rows=st.dictionaries(metrics, st.tuples(st.one_of(st.none(), st.integers(0)), st.one_of(st.none(), st.integers(0)))),
    settings=st.dictionaries(words, st.tuples(words, words), max_size=40),
)  # fmt: skip
widths = st.integers(40, 200)


@given(state, st.lists(finding, max_size=60), former, widths)
def test_the_status_fits_one_screen_and_names_what_it_leaves_out(state, findings, former, width):
    lines = status_lines(state, findings, former, width)
    assert 2 <= len(lines) <= HEIGHT == 25
    assert max(map(len, lines)) <= width
    shown = sum(line.startswith(("  warn: ", "  refuse: ")) for line in lines)
    assert shown >= min(len(findings), 1)
    text = " ".join(line.strip() for line in lines)
    assert "sidlake status --all" in text
    if shown < len(findings):
        left = len(findings) - shown
        assert f"left out here: {left} finding{'' if left == 1 else 's'}" in text


@given(changes, widths)
def test_a_diff_fits_one_screen_and_names_what_it_leaves_out(found, width):
    lines = diff_lines(found, width)
    assert 3 <= len(lines) <= HEIGHT == 25
    assert max(map(len, lines)) <= width
    text = " ".join(line.strip() for line in lines)
    title = f"{len(found.metrics)} metric{'' if len(found.metrics) == 1 else 's'} changed"
    assert (title in text) == bool(found.metrics)
    if f"{title}, verdicts first, then by share, " in text:
        assert "sidlake diff r000001 r000002 --all shows what is left out here: " in text


def a_state(**changes):
    empty = {"override": None, "hold": None, "published_by": None, "tables": [], "rejected": [], "quality": [], "models": []}
    return empty | {"release": "r000002", "generation": "g0001", "created_at": "now", "verdict": "warn"} | changes


def a_finding(metric, verdict="warn", reason="0.4 is above the maximum 0.3"):
    return {"metric": metric, "level": None, "value": 0.4, "threshold": 0.3, "verdict": verdict, "reason": reason}


def test_what_is_wrong_comes_with_what_to_try_and_what_changed():
    state = a_state(tables=[{"table": "items", "rows": 1200, "version": 3}], quality=[a_finding("moved_share")] * 3)
    lines = status_lines(state, [a_finding("moved_share")], {"release": "r000001", "rows": {"items": 1000}}, 100)
    assert lines == [
        "release r000002 of generation g0001, now: warn",
        "1 finding",
        "  warn: moved_share: 0.4 is above the maximum 0.3; try: use wider or more levels, so that fewer",
        "    items collide",
        "since r000001: items 1,000 to 1,200; more: sidlake diff r000001",
        "tables: items 1,200",
        "sidlake status --all shows what is left out here: 2 other figures, versions of tables; sidlake",
        "  report explains it",
    ]


def test_verdicts_that_changed_come_before_metrics_with_a_limit_and_those_before_the_rest():
    def one(metric, before, after, was="info", now="info"):
        return MetricChange(metric=metric, level=0, before=before, after=after, verdict_before=was, verdict_after=now)

    nothing = {"added": 0, "retired": 0}
    found = ReleaseDiff(
        before="r1", after="r2", generation_before="g1", generation_after="g1", same_content=False, rows={}, settings={},
        items=ItemChanges(before=1, after=1, changed=0, examples={}, **nothing),
        sids=SidChanges(same_generation=True, kept=1, moved=0, kept_prefixes=[1], examples=[], **nothing),
        metrics=[one("a", 1, 9), one("b", 1, 1.1, "pass", "pass"), one("c", 1, 1.01, "pass", "warn"), one("d", 1, 20)],
    )  # fmt: skip
    assert diff_lines(found, 100)[-5:] == [
        "4 metrics changed, verdicts first, then by share",
        "  c of level 0: 1 to 1.01 (pass to warn)",
        "  b of level 0: 1 to 1.1",
        "  d of level 0: 1 to 20",
        "  a of level 0: 1 to 9",
    ]


@pytest.mark.parametrize("command", [["status"], ["diff", "r000001", "r000002"]])
def test_one_screen_is_what_the_command_prints_and_all_what_it_is_asked_for(tmp_path, monkeypatch, command):
    shutil.copytree(Path(__file__).with_name("data") / "release-0.1", tmp_path / "lake")
    monkeypatch.setenv("COLUMNS", "80")

    def run(*more):
        result = CliRunner().invoke(app, [*command, *more, "--warehouse", str(tmp_path / "lake")], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output.splitlines()

    assert len(run()) <= HEIGHT
    assert max(map(len, run())) <= 80
    assert "left out here" in " ".join(run())
    assert len(run("--all")) > 60
