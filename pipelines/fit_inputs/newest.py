"""The newest time that is not a stray: what cut-offs are counted back from.

One event with a wrong clock, two years after all others, would otherwise leave a time split without held-out events, or retire the
whole catalogue. Times count as strays where they stand apart from all others by more than the span that is counted back, and are at
most one in a hundred (of twenty or more, one).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

__all__ = ["newest_time"]

_SHARE = 100
_FEW = 20


def newest_time(times: pl.Series, span: timedelta) -> datetime:
    """Return the newest of `times` (not empty, no nulls) before the strays that are more than `span` after all before them.

    >>> day = [datetime(2026, 1, 1 + at % 28) for at in range(200)]
    >>> newest_time(pl.Series([*day, datetime(2028, 1, 1)]), timedelta(days=30))
    datetime.datetime(2026, 1, 28, 0, 0)
    """
    allowed = max(len(times) // _SHARE, int(len(times) >= _FEW))
    tail = times.top_k(allowed + 1).sort()
    apart = [at for at in range(1, len(tail)) if tail[at] - tail[at - 1] > span]
    newest = tail[apart[0] - 1] if apart else tail[-1]
    assert isinstance(newest, datetime)
    return newest
