"""Prices that make clusters equally large: each row takes the cluster where cost plus price is least, and the sizes come out right.

Assigning rows to clusters of given sizes at the least total cost is a transport problem, and its dual variables are one price per
cluster (a power diagram; Aurenhammer, Hoffmann & Aronov 1998). With the prices a row's cluster depends on that row alone, which no
assignment that serves rows in turn can offer. Three ways to prices, each finer than the one before: `annealed_prices` by Sinkhorn's
scaling at ever lower temperatures, which no start and no mixture of scales leads astray; `stepped_prices`, which needs nothing but
the sizes that prices lead to, and so works on rows streamed from anywhere; `balanced_prices`, which ends exactly, by shortest
augmenting paths between clusters (Ahuja, Magnanti & Orlin, Network Flows, 1993, section 9.7), then moves each price to the middle
of what the assignment leaves it, so that rounding changes no row's cluster.

Rows with equal costs (copies) cannot be told apart by any price: they stay together, however large that makes a cluster.

Shape suffixes: N rows, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.nearest import Float64Array, Int64Array

__all__ = ["annealed_prices", "balanced_prices", "equal_sizes", "margin", "stepped_prices"]

_HOTTEST = 0.2  # of the mean distance between a row's mean and least cost
_MARGIN_ROWS = 2048
_RATE, _FASTEST, _FASTER, _SLOWER = 0.2, 0.5, 1.2, 0.7
_STEPS = 30
_SWEEPS = 16
_MOST_MEASURED = 2**31  # costs read while finishing: some seconds


def equal_sizes(num_rows: int, num_clusters: int) -> Int64Array:
    """Return sizes_K that differ by at most one and sum to `num_rows`: where they differ, the first clusters have one row more.

    >>> equal_sizes(7, 3).tolist()
    [3, 2, 2]
    """
    size, rest = divmod(num_rows, num_clusters)
    return size + (np.arange(num_clusters) < rest).astype(np.int64)


def annealed_prices(costs_NK: Float64Array, sizes_K: Int64Array, *, coldest: float, cooling: float, rounds: int) -> Float64Array:
    """Return prices_K that give about `sizes_K`: `rounds` of Sinkhorn's scaling per temperature.

    Temperatures fall by `cooling` from a fifth of a typical difference of costs to `coldest` of the `margin`. Memory: 4 bytes per
    cost. In float32, for speed: the sizes are no more than near either way.
    """
    spread = float((costs_NK.mean(axis=1) - costs_NK.min(axis=1)).mean())
    lowest = coldest * margin(costs_NK)
    prices_K, temperature = np.zeros(len(sizes_K)), _HOTTEST * spread
    while temperature > 0 and lowest > 0:
        for _ in range(rounds):
            soft_K = _soft_counts(costs_NK, prices_K, temperature)
            prices_K = prices_K + temperature * np.log((soft_K + 1e-9 * len(costs_NK)) / sizes_K)
        if temperature <= lowest:
            break
        temperature = max(lowest, temperature / cooling)
    return prices_K


def stepped_prices(
    assign: Callable[[Float64Array], npt.NDArray[np.integer]],
    sizes_K: Int64Array,
    start_K: Float64Array,
    *,
    scale: float,
    steps: int,
) -> Float64Array:
    """Return prices_K that give sizes nearer to `sizes_K` than `start_K`: at most `steps` steps, `assign` gives codes_N for prices.

    Steps are in proportion to the logarithm of how much too large a cluster is and to `scale`, a typical `margin`; a cluster whose
    size goes from too large to too small or back slows down, the others speed up.
    """
    prices_K, best_K, least = start_K, start_K, math.inf
    rates_K, signs_K = np.full(len(sizes_K), _RATE), np.zeros(len(sizes_K))
    for _ in range(steps):
        counts_K = np.bincount(assign(prices_K), minlength=len(sizes_K))
        wrong = int(np.abs(counts_K - sizes_K).sum())
        if wrong < least:
            best_K, least = prices_K, wrong
        if wrong == 0:
            break
        before_K, signs_K = signs_K, np.sign(counts_K - sizes_K).astype(np.float64)
        rates_K = np.where(signs_K * before_K < 0, rates_K * _SLOWER, np.minimum(rates_K * _FASTER, _FASTEST))
        prices_K = prices_K + rates_K * scale * np.log((counts_K + 1) / (sizes_K + 1))
    return best_K


def balanced_prices(costs_NK: Float64Array, sizes_K: Int64Array) -> tuple[Float64Array, Int64Array]:
    """Return prices_K and codes_N of the assignment with `sizes_K` that costs least.

    ``(costs + prices).argmin(1)`` is codes_N for every row that the best assignment does not leave torn between two clusters.
    Where copies of rows make the sizes impossible it gives up after a fixed amount of work, with sizes as near as that leads.
    `costs_NK` are only compared within a row. Memory beside them: 12 bytes per cost, and 8 K**2.
    """
    prices_K = annealed_prices(costs_NK, sizes_K, coldest=0.02, cooling=2.0, rounds=5)
    scale = margin(costs_NK + prices_K)
    prices_K = stepped_prices(lambda at_K: (costs_NK + at_K).argmin(axis=1), sizes_K, prices_K, scale=scale, steps=_STEPS)
    transport = _Transport(costs_NK, prices_K)
    while transport.measured < _MOST_MEASURED and transport.move_one(sizes_K):
        pass
    transport.centre()
    return transport.prices_K, transport.codes_N


def margin(costs_NK: Float64Array) -> float:
    """Return by how much the second best cluster is dearer than the best, on average over some 2,048 rows; 0 for one cluster.

    >>> margin(np.array([[0.0, 1.0, 5.0], [9.0, 2.0, 5.0]]))
    2.0
    """
    if costs_NK.shape[1] < 2:
        return 0.0
    two = np.partition(costs_NK[:: max(1, len(costs_NK) // _MARGIN_ROWS)], 1, axis=1)[:, :2]
    return math.fsum((two[:, 1] - two[:, 0]).tolist()) / len(two)


def _soft_counts(costs_NK: Float64Array, prices_K: Float64Array, temperature: float) -> Float64Array:
    """Return per cluster the sum over rows of exp(-(cost + price) / temperature), each row scaled to sum to one."""
    weights_NK = (costs_NK + prices_K).astype(np.float32)
    weights_NK -= weights_NK.min(axis=1, keepdims=True)
    weights_NK *= np.float32(-1 / temperature)
    np.exp(weights_NK, out=weights_NK)
    weights_NK /= weights_NK.sum(axis=1, keepdims=True)
    soft_K: Float64Array = weights_NK.sum(axis=0, dtype=np.float64)
    return soft_K


class _Transport:
    """An assignment that is cheapest for its sizes, and prices that prove it; `move_one` makes the sizes a step better.

    `gaps_KK` holds, for each pair of clusters, what the cheapest row to move from the first to the second would cost more there;
    `measured` counts the costs read for it.
    """

    def __init__(self, costs_NK: Float64Array, prices_K: Float64Array) -> None:
        self.costs_NK, self.prices_K = costs_NK, prices_K.copy()
        self.codes_N = (costs_NK + prices_K).argmin(axis=1)
        self.measured = 0
        self.gaps_KK = np.full((len(prices_K), len(prices_K)), math.inf)
        for cluster in range(len(prices_K)):
            self._measure(cluster)

    def move_one(self, sizes_K: Int64Array) -> bool:
        """Bring one row from a cluster that is too large to one too small, over others where that is cheaper; False if none is.

        Dijkstra's algorithm on reduced costs.
        """
        excess_K = np.bincount(self.codes_N, minlength=len(sizes_K)) - sizes_K
        if not excess_K.any():
            return False
        distances_K, before_K, target = self._shortest(excess_K)
        self.prices_K -= np.minimum(distances_K, distances_K[target])
        while before_K[target] >= 0:
            source = int(before_K[target])
            rows = np.flatnonzero(self.codes_N == source)
            row = rows[(self.costs_NK[rows, target] - self.costs_NK[rows, source]).argmin()]
            self.codes_N[row] = target
            self._measure(target)
            target = source
        self._measure(target)
        return True

    def centre(self) -> None:
        """Move each price in turn to the middle between the least and the most that keep every row where it is."""
        for cluster in np.tile(np.arange(len(self.prices_K)), _SWEEPS).tolist():
            others = np.arange(len(self.prices_K)) != cluster
            most = (self.prices_K + self.gaps_KK[cluster])[others].min(initial=math.inf)
            least = (self.prices_K - self.gaps_KK[:, cluster])[others].max(initial=-math.inf)
            if math.isfinite(most) and math.isfinite(least):
                self.prices_K[cluster] = (least + most) / 2

    def _shortest(self, excess_K: Int64Array) -> tuple[Float64Array, Int64Array, int]:
        """Return distances_K from the clusters too large, the cluster before each on its path, and the nearest one too small."""
        distances_K = np.where(excess_K > 0, 0.0, math.inf)
        before_K = np.full(len(excess_K), -1)
        open_K = distances_K.copy()
        while True:
            nearest = int(open_K.argmin())
            if excess_K[nearest] < 0:
                return distances_K, before_K, nearest
            open_K[nearest] = math.inf
            reduced_K = np.maximum(self.gaps_KK[nearest] + self.prices_K - self.prices_K[nearest], 0.0)
            found_K = distances_K[nearest] + reduced_K
            shorter = np.flatnonzero(found_K < distances_K)
            distances_K[shorter] = open_K[shorter] = found_K[shorter]
            before_K[shorter] = nearest

    def _measure(self, cluster: int) -> None:
        """Refresh ``gaps_KK[cluster]`` after its rows changed; a cluster without rows has none to give."""
        rows = self.costs_NK[self.codes_N == cluster]
        self.measured += rows.size
        self.gaps_KK[cluster] = (rows - rows[:, cluster : cluster + 1]).min(axis=0) if len(rows) else math.inf
