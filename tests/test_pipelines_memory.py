"""A limit of memory refuses a step by name before it starts, and a large catalogue is measured on fewer sessions, which is said."""

import pytest
from test_pipelines_steps import edit, opened

from sidlake.errors import MemoryTooSmall
from sidlake.memory import FLOOR
from sidlake.pipelines.run import Holds, run_step
from sidlake.pipelines.settings.quality import QualityConfig
from sidlake.pipelines.steps import STEPS

STRICTER = ("[trainer]", '[[gates]]\nmetric = "unique_share"\nminimum = 0.5\n\n[trainer]')


def test_a_step_that_holds_more_than_the_limit_is_refused_before_it_writes(shop_copy):
    edit(shop_copy, *STRICTER)
    ctx = opened(shop_copy, memory=FLOOR + 1000)
    before = dict(ctx.tables)
    with pytest.raises(MemoryTooSmall, match=r"step check needs .*200 items of 128 dimensions, .* events.*--memory"):
        run_step(ctx, STEPS["check"])
    assert ctx.tables == before
    assert not run_step(opened(shop_copy, memory=2 * FLOOR), STEPS["check"]).skipped


def test_a_step_that_has_nothing_to_do_needs_no_memory(shop_copy):
    assert run_step(opened(shop_copy, memory=FLOOR + 1000), STEPS["check"]).skipped


def test_what_a_step_holds_is_counted_by_item_dimension_event_and_block(shop):
    ctx = opened(shop)
    events = ctx.warehouse.num_rows("interactions", ctx.tables["interactions"])
    for block, held in ((0, 0), (1000, 1000), (2**40, 16 * 200 * 200)):
        holds = Holds(item=10, value=2, event=3, block=block)
        ctx.warehouse.memory = FLOOR + 200 * (10 + 2 * 128) + 3 * events + held
        holds.refuse(ctx, "step")
        ctx.warehouse.memory -= 1
        with pytest.raises(MemoryTooSmall):
            holds.refuse(ctx, "step")


def test_a_catalogue_beyond_the_exact_size_says_which_share_of_its_sessions_was_scored(shop_copy):
    def shares():
        rows = ctx.read("sid_quality", ["metric", "value"]).to_pylist()
        return [row["value"] for row in rows if row["metric"] == "ehr_sampled_share"]

    edit(shop_copy, *STRICTER)
    ctx = opened(shop_copy)
    run_step(ctx, STEPS["check"])
    assert shares() == []
    edit(shop_copy, "[trainer]", "[quality]\nexact_items = 199\n\n[trainer]")
    ctx = opened(shop_copy)
    assert not run_step(ctx, STEPS["check"]).skipped
    assert shares() == [1.0]  # no more than a thousand sessions, which are scored however large the catalogue is


def test_sessions_become_fewer_as_items_become_more():
    config = QualityConfig(exact_items=1_000)
    assert [config.num_sessions(items, 20_000) for items in (999, 1_000, 1_001, 4_000, 10**9)] == [
        20_000,
        20_000,
        19_980,
        5_000,
        1_000,
    ]
    assert config.num_sessions(10**9, 300) == 300
