"""Acts that run jobs: whole, in part, to their death, again, beside another machine; and what may come out of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from math import prod
from typing import Any

from composing.faults import Crash, crashing, set_clock
from composing.shop import Shop, new_run, step_names
from composing.state import Composition, adopt, expected

from sidlake.errors import SidlakeError
from sidlake.warehouse.releases import history

__all__ = [
    "Run", "crash", "die", "expect_death", "import_sids", "mourn", "partial", "refresh", "retrain", "run_again", "run_job",
    "second_writer",
]  # fmt: skip


JOBS = ("refresh", "refresh", "retrain")
SELECTED = {"StaleStepError", "NotFoundError", "EncoderError", "FitError", "GateFailed", "CapacityError", "ContractError"}
"""What a run of some steps may be refused with: what they need is not there or not of today, and it was not they who made it."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of a job: all steps or those named, with an override or not, the first time or `again`, to the end or to write `at`.

    Its SIDs are its own, or those that the number `given` deals.
    """

    job: str
    override: bool
    steps: tuple[str, ...] | None = None
    run_id: str = field(default_factory=new_run)
    again: bool = False
    at: int | None = None
    kill: bool = False
    given: int | None = None

    @property
    def whole(self) -> bool:
        """Whether what it publishes is what the sources say now."""
        return self.steps is None and not self.again


def refresh(state: Composition, override: int = 1, twin: int = 1) -> list[str]:
    """Run the daily job; every third time with an override, every ninth beside a copy that reads all files again."""
    return run_job(state, Run(job="refresh", override=override % 3 == 0), twin=twin % 9 == 0)


def retrain(state: Composition, override: int = 1) -> list[str]:
    """Run the weekly job; every third time with an override."""
    return run_job(state, Run(job="retrain", override=override % 3 == 0))


def import_sids(state: Composition, pick: int) -> list[str]:
    """Publish SIDs that somebody else made, one for each item that there is."""
    titles, _ = expected(state)
    if state.settings.uniqueness == "append" or len(titles) > prod(state.settings.widths):
        return []
    return run_job(state, Run(job="retrain", override=True, given=pick))


def partial(state: Composition, pick: int, job: int, override: int = 1) -> list[str]:
    """Run some steps of a job, as one selects assets in an orchestrator's graph."""
    name = JOBS[job % 3]
    chosen = [
        step for place, step in enumerate(step_names(name)) if (pick >> place) % 2 or (pick % 3 == 0 and step.startswith("release"))
    ]
    return run_job(state, Run(job=name, override=override % 3 == 0, steps=tuple(chosen)))


def crash(state: Composition, job: int, at: int) -> list[str]:
    """Run a job that stops at one of its writes by an exception that nothing catches."""
    return run_job(state, Run(job=JOBS[job % 3], override=True, at=1 + at % 60))


def die(state: Composition, job: int, at: int) -> list[str]:
    """Run a job whose process ends at one of its writes; another process must be there to `mourn` it (see `expect_death`)."""
    if not state.dying or state.pending is None:
        return crash(state, job, at)
    return run_job(state, Run(job=state.pending["job"], override=True, at=1 + at % 60, kill=True, run_id=state.pending["run_id"]))


def expect_death(state: Composition, job: int, **_: int) -> None:
    """Note which run is about to die."""
    state.dying = True
    state.pending = {"run_id": new_run(), "job": JOBS[job % 3], "at": "", "wanted": expected(state)}


def mourn(state: Composition) -> list[str]:
    """Return what is wrong with what a run that died has left; it may have published."""
    set_clock(state.back)
    state.dying = False
    return _judge(state, Run(job=state.pending["job"], override=True), Crash()) if state.pending else []


def run_again(state: Composition, how: int, override: int = 0) -> list[str]:
    """Re-execute the run that failed or died last: from where it failed, or all of it."""
    if (pending := state.pending) is None:
        return []
    names = step_names(pending["job"])
    steps = tuple(names[names.index(pending["at"]) :]) if how % 2 and pending["at"] else None
    again = Run(job=pending["job"], override=override % 3 == 0, steps=steps, run_id=pending["run_id"], again=True)
    return run_job(state, again)


def run_job(state: Composition, run: Run, *, twin: bool = False) -> list[str]:
    """Do `run` and return what is wrong after it; with `twin` a copy of the shop that remembers nothing does the same."""
    state.dying = state.dying and run.kill
    other = _copied(state) if twin else None
    wanted = [expected(state)] + ([state.pending["wanted"]] if run.again and state.pending and state.pending["at"] else [])
    error, reached = _attempt(state.shop, run)
    state.pending = {"run_id": run.run_id, "job": run.job, "at": reached, "wanted": wanted[-1]} if error else None
    broken = _judge(state, run, error, reached)
    if run.again and error is None and not any(_is(state, titles, events) for titles, events in wanted):
        broken.append(f"{run.job} executed again succeeded, and what it was to publish is not there")
    return broken + (_same_as(state, other, run, error) if other else [])


def _is(state: Composition, titles: dict[str, str], events: dict[tuple[str, str, int], int]) -> bool:
    """Return whether the current release has these items and events."""
    after = state.book.current
    return after is not None and (after.titles, after.events) == (titles, events)


def _attempt(shop: Shop, run: Run) -> tuple[BaseException | None, str]:
    """Return what `run` raised, if anything, and the last step that it began."""
    reached = ""
    try:
        with crashing(run.at, kill=run.kill):
            for reached in shop.running(run):  # noqa: B007
                pass
    except (Crash, Exception) as caught:
        return caught, reached
    return None, reached


def _judge(state: Composition, run: Run, error: BaseException | None, reached: str = "") -> list[str]:
    """Return what is wrong after a run: with what it published, or did not, or with how it failed."""
    titles, events = expected(state)
    allowed = _allowed(state, run, len(titles), bool(events))
    if not run.whole and reached != "release":
        allowed |= {"LawBroken"}  # a step without the one before it finds what does not fit, and says so
    num_before = len(state.book.releases)
    broken = adopt(state, run.job)
    after = state.book.current
    if run.whole and (error is None or len(state.book.releases) > num_before):
        if after is None:
            broken.append(f"{run.job} succeeded and published nothing")
        elif after.titles != titles:
            broken.append(f"after {run.job} the items are {_difference(after.titles, titles)}")
        elif after.events != events:
            broken.append(f"after {run.job} the events are {_difference(after.events, events)}")
    return broken + ([] if error is None or isinstance(error, Crash) else _judge_error(state, run, error, allowed))


def _judge_error(state: Composition, run: Run, error: BaseException, allowed: set[str]) -> list[str]:
    """Return what is wrong with failing by `error`."""
    kind = type(error).__name__
    if not isinstance(error, SidlakeError):
        return [f"{run.job} raised {kind}, which is no error of sidlake: {error}"]
    if kind not in allowed:
        return [f"{run.job} raised {kind}, expected {' or '.join(sorted(allowed)) or 'success'}: {error}"]
    if kind == "GateFailed" and run.whole and not state.settings.gate:
        rows: Any = error.details.get("failing", [])
        failing = {row["metric"] for row in rows}
        if not failing or failing - {"foreign_item_share", "leaked_session_share"}:
            return [f"{run.job} was refused for {failing}, the recipe has no such gate: {error}"]
    return []


def _allowed(state: Composition, run: Run, num_items: int, any_events: bool) -> set[str]:
    """Return the errors that may come out of `run` now."""
    current, settings = state.book.current, state.settings
    allowed = set() if run.override and run.whole else {"GateFailed"}
    differs = current is not None and current.settings != settings.of_generation
    allowed |= {"RetrainNeeded"} if run.job == "refresh" and differs else set()
    allowed |= {"HoldError"} if state.held else set()
    allowed |= {"RunStateError"} if run.again else set()
    allowed |= {"ContractError"} if run.given is not None else set()  # of an item that retires in this very run
    allowed |= {"ReleaseConflict", "RetrainNeeded"} if run.again or run.steps is not None else set()
    allowed |= SELECTED if not run.whole else set()
    if run.job == "retrain" or not run.whole:
        allowed |= {"FitError"} if num_items < max(settings.widths) else set()
        allowed |= {"EncoderError"} if "behaviour" in settings.fusion or num_items < 2 else set()
        allowed |= {"CapacityError"} if num_items > prod(settings.widths) or settings.uniqueness == "append" else set()
    if current is not None:
        widths, _, uniqueness, *_ = current.settings
        known = state.book.sids[current.generation]
        fresh = len(set(state.world.described()) - set(known))
        allowed |= {"CapacityError"} if len(known) + fresh > prod(widths) or uniqueness == "append" else set()
    return allowed | ({"ContractError"} if not any_events or not num_items else set())


def _difference(found: dict[Any, Any], wanted: dict[Any, Any]) -> str:
    keys = sorted((key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)), key=str)[:4]
    return ", ".join(f"{key}: {found.get(key)} instead of {wanted.get(key)}" for key in keys)


def _copied(state: Composition) -> Shop:
    folder = state.shop.folder.with_name(state.shop.folder.name + "-twin")
    shutil.rmtree(folder, ignore_errors=True)
    return state.shop.copy(folder, forgetting=True)


def _same_as(state: Composition, other: Shop, run: Run, error: BaseException | None) -> list[str]:
    """Return how `run` on a copy that reads all files again differs from what it has just made of the new ones."""
    failed, _ = _attempt(other, run)
    here, there = history(state.shop.warehouse)[-1], history(other.warehouse)[-1]
    shutil.rmtree(other.folder)
    if type(failed) is not type(error):
        return [f"reading all files again ends in {failed!r}, reading new ones ended in {error!r}"]
    if here.content_hash != there.content_hash:
        return [f"{run.job} made {here.content_hash[:12]} by reading new files, {there.content_hash[:12]} by reading all"]
    return []


def second_writer(state: Composition, pick: int, order: int) -> list[str]:
    """Run two jobs on machines that do not see each other's lock, a step of one and a step of the other as `order` says."""
    runs = [Run(job="refresh", override=True), Run(job=("refresh", "retrain")[pick % 2], override=True)]
    working = [state.shop.running(run, on=on) for run, on in zip(runs, ("w", "other"), strict=True)]
    errors: list[BaseException | None] = [None, None]
    left, turn = [0, 1], 0
    while left:
        which = left[(order >> (turn % 16)) % 2 % len(left)]
        turn += 1
        try:
            next(working[which])
        except StopIteration:
            left.remove(which)
        except Exception as caught:
            errors[which] = caught
            left.remove(which)
    state.pending = None
    titles, events = expected(state)
    broken = []
    for run, error in zip(runs, errors, strict=True):
        allowed = _allowed(state, run, len(titles), bool(events)) | {"ReleaseConflict", "WarehouseBusy"}
        broken += [] if error is None else [f"beside another machine, {what}" for what in _judge_error(state, run, error, allowed)]
    return broken + adopt(state, "retrain" if errors[1] is None else "refresh")
