"""How to read what a release changes of the one before it; rows of `readings`, as (metric, title, unit, sentence)."""

from __future__ import annotations

from typing import Literal

__all__ = ["JUMPS"]

JUMPS: tuple[tuple[str, str, Literal["share"], str], ...] = (
    ("gone_item_share", "Items gone", "share", "Items of the release before that this one lacks; many at once are seldom meant."),
    ("changed_item_share", "Items changed", "share", "Items of the release before that have another content now."),
    ("lost_event_share", "Events lost", "share", "By how much the number of events fell since the release before."),
    ("rejected_share", "Rows refused", "share", "Refused rows, of those, the items and the events together."),
    ("rejected_share_rise", "More rows refused", "share", "How much the share of refused rows grew since the release before."),
    (
        "without_vector_share_rise",
        "More items without a vector",
        "share",
        "How much the share of items without a vector grew, of the modality where it grew most; behaviour does not count.",
    ),
    (
        "confused_text_share",
        "Texts with another's vector",
        "share",
        "Items whose text vector another text has too: a model that cannot read a script gives all its texts one vector.",
    ),
)
