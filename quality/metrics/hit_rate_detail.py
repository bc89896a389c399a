"""What is behind a hit rate: a bootstrap interval, the difference of two on the same sessions, popular, rare and cold targets.

Popular targets are easier to find for vectors that saw behaviour, and carry most sessions; a catalogue gains where semantic IDs
generalise to rare items. Cold targets are those that nothing interacted with before. Intervals take sessions as independent.

A bootstrap over sessions that hit or miss is a binomial draw, and of two paired ones a multinomial draw, so both are sampled
directly: the distribution is that of resampling the sessions with replacement (percentile intervals, Efron 1979). At 0 and 1 such
an interval has no width; `EmbeddingHitRate` keeps Wilson's, which has.

Shapes: N items, S scored sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.metrics.exact_sums import mean_chance
from sidlake.quality.metrics.hit_rate import SessionHits, wilson_interval
from sidlake.quality.metrics.sessions import Sessions

__all__ = [
    "BucketHitRate",
    "HitRateDifference",
    "bootstrap_interval",
    "hit_rate_by_popularity",
    "hit_rate_difference",
    "popularity",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketHitRate:
    """The hit rate of targets that `least` to `most` interactions named; NaN without a session. ci_low, ci_high: Wilson, 95 %."""

    least: int
    most: int
    num_items: int
    num_sessions: int
    value: float
    random_floor: float
    ci_low: float
    ci_high: float

    @property
    def is_cold(self) -> bool:
        """Whether these are the targets that nothing interacted with."""
        return self.least == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class HitRateDifference:
    """How much higher one hit rate is than another on the same sessions, with its 95 % bootstrap interval."""

    value: float
    ci_low: float
    ci_high: float


def bootstrap_interval(
    hits: SessionHits, *, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the hit rate over sessions; deterministic for a seed."""
    _check_resampling(level, num_resamples)
    num_sessions = len(hits.hits_S)
    rng = np.random.default_rng(seed)
    drawn = rng.binomial(num_sessions, float(hits.hits_S.mean()), num_resamples) / num_sessions
    return _percentiles(drawn, level)


def hit_rate_difference(
    ours: SessionHits, theirs: SessionHits, *, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> HitRateDifference:
    """Return ours − theirs with the paired bootstrap interval; narrower than two intervals, since most sessions agree.

    Raises ValueError unless both scored the same sessions.
    """
    _check_resampling(level, num_resamples)
    if not np.array_equal(ours.sessions_S, theirs.sessions_S):
        msg = f"hit rates of different sessions cannot be paired: {len(ours.sessions_S)} and {len(theirs.sessions_S)} were scored"
        raise ValueError(msg)
    num_sessions = len(ours.hits_S)
    better, worse = float(np.mean(ours.hits_S & ~theirs.hits_S)), float(np.mean(theirs.hits_S & ~ours.hits_S))
    drawn = np.random.default_rng(seed).multinomial(num_sessions, [better, worse, max(0.0, 1 - better - worse)], num_resamples)
    low, high = _percentiles((drawn[:, 0] - drawn[:, 1]) / num_sessions, level)
    return HitRateDifference(value=better - worse, ci_low=low, ci_high=high)


def popularity(sessions: Sessions, num_items: int) -> npt.NDArray[np.int64]:
    """Return how often each gallery item occurs in the histories, targets not counted (N,).

    >>> sessions = Sessions(items_flat=np.array([2, 0, 2, -1]), offsets=np.array([0, 4]), targets=np.array([1]))
    >>> popularity(sessions, 3).tolist()
    [1, 0, 2]
    """
    return np.bincount(sessions.items_flat[sessions.items_flat >= 0], minlength=num_items).astype(np.int64)


def hit_rate_by_popularity(
    hits: SessionHits, sessions: Sessions, popularity_N: npt.NDArray[np.integer[Any]], *, num_buckets: int = 4
) -> tuple[BucketHitRate, ...]:
    """Return the hit rate of cold targets (popularity 0), then of `num_buckets` buckets of the other items, rare to popular.

    Buckets hold about as many items each; equally popular items share one, so that some may be empty, and an empty one is
    NaN with no items. Targets outside the gallery are in none. Raises ValueError where shapes disagree or num_buckets < 1.
    """
    if popularity_N.shape != (hits.num_items,) or num_buckets < 1 or popularity_N.min(initial=0) < 0:
        msg = (
            f"expected a popularity >= 0 per item ({hits.num_items}) and num_buckets >= 1, got {popularity_N.shape}, {num_buckets}"
        )
        raise ValueError(msg)
    warm = np.sort(popularity_N[popularity_N > 0])
    cuts = [int(warm[len(warm) * part // num_buckets]) if len(warm) else 1 for part in range(1, num_buckets)]
    bounds = [0, 1, *cuts, int(warm[-1]) + 1 if len(warm) else 1]
    target_S = sessions.targets[hits.sessions_S]
    popularity_S = np.where(target_S >= 0, popularity_N[target_S], -1)
    return tuple(_bucket(hits, popularity_N, popularity_S, least, above) for least, above in pairwise(bounds))


def _bucket(
    hits: SessionHits,
    popularity_N: npt.NDArray[np.integer[Any]],
    popularity_S: npt.NDArray[np.integer[Any]],
    least: int,
    above: int,
) -> BucketHitRate:
    """Return the hit rate of targets whose popularity lies in [least, above)."""
    in_bucket_S = (popularity_S >= least) & (popularity_S < above)
    num, num_hits = int(np.count_nonzero(in_bucket_S)), int(np.count_nonzero(hits.hits_S[in_bucket_S]))
    low, high = wilson_interval(num_hits, num) if num else (float("nan"), float("nan"))
    return BucketHitRate(
        least=least,
        most=above - 1,
        num_items=int(np.count_nonzero((popularity_N >= least) & (popularity_N < above))),
        num_sessions=num,
        value=num_hits / num if num else float("nan"),
        random_floor=mean_chance(hits.k / (hits.num_items - 1), hits.chances_S[in_bucket_S]),
        ci_low=low,
        ci_high=high,
    )


def _percentiles(drawn: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_resampling(level: float, num_resamples: int) -> None:
    if not 0 < level < 1 or num_resamples < 1:
        msg = f"level must lie in (0, 1) and num_resamples be >= 1, got {level} and {num_resamples}"
        raise ValueError(msg)
