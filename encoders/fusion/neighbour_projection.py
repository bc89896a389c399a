"""A small network that keeps each item's neighbours while it makes vectors short enough for a few codes to describe.

Three levels of 256 codes leave a third of the variance of 128 fused dimensions; of 24 dimensions they leave a seventh. Principal
components of that few dimensions forget whom an item resembles. So the network is not asked to keep variance but neighbours: for
every item a teacher names its nearest others, with a weight each, and the network's cosines are to give the same distribution over
all items (the objective of stochastic neighbour embedding, Hinton & Roweis 2002). The teacher's score is the cosine of the blocks,
plus what was taken together (co-occurrence at 1/gap, each item's strongest partner counting 1), plus how often an item was taken
(standardised logarithm). The network reads the modalities alone, so an item without purchases is placed by what it is. It is a
linear map, which starts at the principal axes, plus one hidden layer, which starts at nothing.

Cost of a fit: the square of the rows, twice, so at most `_MAX_ROWS` rows are fitted on, spread evenly in the order given; 4 * S
bytes per row and 300 MB. One thread, seeded.

Deliberately not done: a teacher that is learned; training through the quantizer.

Shapes: N items, S dims of all modalities side by side, D of the result, H hidden, P pairs, K neighbours, B of a batch, C of a
chunk.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from torch import Tensor
from torch.nn import functional

from sidlake.encoders.fusion.config import FuseConfig
from sidlake.encoders.fusion.network import apply_network, unit_rows

__all__ = ["Neighbours", "fit_network", "teach"]

_MAX_ROWS = 32_768
_TEACHER_ROWS = 1000  # their cosines with all at a time: 130 MB
_RANKED_ROWS = 100  # of these at a time: 100 MB
_BATCH = 1024
_CHUNK = 256  # of a batch, scored against all at a time: 34 MB
_LEARNING_RATE = 0.02  # falls to 0 in a line
_STUDENT_TEMPERATURE = 0.1
_TEACHER_TEMPERATURE = 0.07

Neighbours = tuple[NDArray[np.int64], NDArray[np.float32]]
"""The nearest others of each item [N, K], in no order, and their weights [N, K], which sum to 1."""


def teach(
    x_NS: NDArray[np.float32],
    pairs_P2: NDArray[np.int64] | None,
    gaps_P: NDArray[np.int64] | None,
    *,
    config: FuseConfig,
) -> Neighbours:
    """Return the teacher's neighbours of rows `x_NS` of length one; the same for any order of the pairs.

    `gaps_P` says how many positions apart the items of a pair were taken; without it all count the same.
    """
    num_rows = len(x_NS)
    k = min(config.num_neighbours, num_rows - 1)
    together_NN, bonus_N = _behaviour(num_rows, pairs_P2, gaps_P, config)
    nearest_NK, weights_NK = np.empty((num_rows, k), np.int64), np.empty((num_rows, k), np.float32)
    for first in range(0, num_rows, _TEACHER_ROWS):
        cosines_CN = x_NS[first : first + _TEACHER_ROWS] @ x_NS.T
        for start in range(0, len(cosines_CN), _RANKED_ROWS):
            rows = np.arange(first + start, first + min(start + _RANKED_ROWS, len(cosines_CN)))
            scores_CN = together_NN[rows].toarray()
            scores_CN += cosines_CN[start : start + _RANKED_ROWS]
            scores_CN += bonus_N
            scores_CN[np.arange(len(rows)), rows] = -np.inf
            nearest_NK[rows], weights_NK[rows] = _best(scores_CN.astype(np.float32), k)
    return nearest_NK, weights_NK


def _best(scores_CN: NDArray[np.float32], k: int) -> Neighbours:
    """Return the `k` best of each row, in no order, and their weights, the softmax of their scores."""
    nearest_CK = np.argpartition(-scores_CN, k - 1, axis=1)[:, :k]
    best_CK = np.take_along_axis(scores_CN, nearest_CK, axis=1)
    odds_CK = np.exp((best_CK - best_CK.max(axis=1, keepdims=True)) / _TEACHER_TEMPERATURE)
    return nearest_CK, odds_CK / odds_CK.sum(axis=1, keepdims=True)


def fit_network(
    blocks_NS: NDArray[np.float32],
    pairs_P2: NDArray[np.int64] | None,
    gaps_P: NDArray[np.int64] | None,
    *,
    axes_SD: NDArray[np.float64],
    config: FuseConfig,
) -> dict[str, NDArray[np.float64]]:
    """Return the tensors of the network and of the affine way back to the blocks, float64; deterministic for an order of rows.

    ``linear`` [S, D], ``bias`` [D], ``inner`` [S, H], ``inner_bias`` [H], ``outer`` [H, D]; ``back`` [D + 1, S] gives the blocks
    that are expected of a result, by least squares. Torch's generator and number of threads are left as they were.
    """
    rows = np.unique(np.linspace(0, len(blocks_NS) - 1, min(len(blocks_NS), _MAX_ROWS)).astype(np.int64))
    x_NS = unit_rows(blocks_NS[rows].astype(np.float64)).astype(np.float32)
    pairs_P2, gaps_P = _among(rows, len(blocks_NS), pairs_P2, gaps_P)
    nearest_NK, weights_NK = teach(x_NS, pairs_P2, gaps_P, config=config)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = _train(x_NS, torch.from_numpy(nearest_NK), torch.from_numpy(weights_NK), axes_SD, config)
    finally:
        torch.set_num_threads(threads)
    result_ND = apply_network(network, blocks_NS[rows].astype(np.float64))
    design = np.concatenate([result_ND, np.ones((len(rows), 1))], axis=1)
    network["back"] = np.linalg.lstsq(design, blocks_NS[rows].astype(np.float64), rcond=None)[0]
    return network


def _train(
    x_NS: NDArray[np.float32], nearest_NK: Tensor, weights_NK: Tensor, axes_SD: NDArray[np.float64], config: FuseConfig
) -> dict[str, NDArray[np.float64]]:
    start = torch.Generator().manual_seed(config.seed)
    num_rows, width = x_NS.shape
    mean_S = x_NS.mean(axis=0, dtype=np.float64)
    spread = 3 * math.sqrt(2 / width)  # rows have length one, not one per dimension as He's start supposes
    parameters = {
        "linear": torch.tensor(axes_SD, dtype=torch.float32),
        "bias": torch.tensor(-mean_S @ axes_SD, dtype=torch.float32),
        "inner": torch.randn(width, config.hidden, generator=start) * spread,
        "inner_bias": torch.zeros(config.hidden),
        "outer": torch.zeros(config.hidden, axes_SD.shape[1]),
    }
    for parameter in parameters.values():
        parameter.requires_grad_()
    p, x = parameters, torch.from_numpy(x_NS)
    optimizer = torch.optim.Adam(parameters.values(), lr=_LEARNING_RATE)
    order = torch.Generator().manual_seed(config.seed)
    num_steps, step = config.num_epochs * math.ceil(num_rows / _BATCH), 0
    for _ in range(config.num_epochs):
        for batch_B in torch.split(torch.randperm(num_rows, generator=order), _BATCH):
            optimizer.param_groups[0]["lr"] = _LEARNING_RATE * (1 - step / num_steps)
            made_ND = x @ p["linear"] + p["bias"] + torch.relu(x @ p["inner"] + p["inner_bias"]) @ p["outer"]
            unit_ND = functional.normalize(made_ND, dim=1)
            gradient_ND = _gradient(unit_ND.detach(), batch_B, nearest_NK, weights_NK)
            optimizer.zero_grad()
            unit_ND.backward(gradient_ND)  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
    return {name: parameter.detach().numpy().astype(np.float64) for name, parameter in parameters.items()}


def _gradient(unit_ND: Tensor, batch_B: Tensor, nearest_NK: Tensor, weights_NK: Tensor) -> Tensor:
    """Return the gradient [N, D] of the batch's mean cross-entropy between the teacher and the softmax of cosines.

    By hand, chunk by chunk: autograd would keep the scores of the whole batch against all items.
    """
    gradient_ND = torch.zeros_like(unit_ND)
    for rows_C in torch.split(batch_B, _CHUNK):
        scores_CN = (unit_ND[rows_C] @ unit_ND.T).div_(_STUDENT_TEMPERATURE)
        scores_CN[torch.arange(len(rows_C)), rows_C] = float("-inf")
        error_CN = torch.softmax(scores_CN, dim=1)
        error_CN.scatter_add_(1, nearest_NK[rows_C], -weights_NK[rows_C])
        error_CN.div_(len(batch_B) * _STUDENT_TEMPERATURE)
        gradient_ND.index_add_(0, rows_C, error_CN @ unit_ND)
        gradient_ND += error_CN.T @ unit_ND[rows_C]
    return gradient_ND


def _behaviour(
    num_rows: int, pairs_P2: NDArray[np.int64] | None, gaps_P: NDArray[np.int64] | None, config: FuseConfig
) -> tuple[csr_array, NDArray[np.float64]]:
    """Return what being taken together adds to the score of two items [N, N], and what being taken often adds to an item's [N]."""
    if pairs_P2 is None or not len(pairs_P2):
        return csr_array((num_rows, num_rows)), np.zeros(num_rows)
    gaps_P = np.ones(len(pairs_P2), np.int64) if gaps_P is None else gaps_P
    order = np.lexsort((gaps_P, pairs_P2[:, 1], pairs_P2[:, 0]))
    rows, columns = pairs_P2[order].T
    once_NN = csr_array((1.0 / gaps_P[order], (rows, columns)), shape=(num_rows, num_rows))
    both_NN = csr_array(once_NN + once_NN.T)
    strongest_N = np.asarray(both_NN.max(axis=1).todense()).ravel()
    scaled_NN = diags_array(1.0 / np.where(strongest_N > 0, strongest_N, 1.0)) @ both_NN
    taken_N = np.log1p(np.bincount(pairs_P2.ravel(), minlength=num_rows).astype(np.float64))
    standard_N = (taken_N - taken_N.mean()) / (taken_N.std() or 1.0)
    return csr_array(config.together_weight * scaled_NN), config.popularity_weight * standard_N


def _among(
    rows: NDArray[np.int64], num_rows: int, pairs_P2: NDArray[np.int64] | None, gaps_P: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """Return the pairs between `rows`, numbered by their place among them."""
    if pairs_P2 is None:
        return None, None
    place_N = np.full(num_rows, -1, np.int64)
    place_N[rows] = np.arange(len(rows))
    placed_P2 = place_N[pairs_P2]
    kept = (placed_P2 >= 0).all(axis=1) & (placed_P2[:, 0] != placed_P2[:, 1])
    return placed_P2[kept], None if gaps_P is None else gaps_P[kept]
