"""What every fit checks before it starts: the config's class, the device, the rows, the facts; and which rows it takes.

A row far from all others is named where the kind cannot serve the others beside it: the fit's scale, prices or gradients would be
that row's. Nothing is clipped: whether such a row is an error or an item is for its owner to say.

Shape suffixes: N rows, D dimensions, L levels, P pairs, C dimensions of collaborative vectors, S rows of a sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sidlake.errors import FitError
from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array, Int64Array, all_finite

if TYPE_CHECKING:
    from sidlake.tokenizers.tokenizer import ItemFacts, Tokenizer

__all__ = [
    "as_rows",
    "check_config",
    "check_facts",
    "check_fit",
    "check_trained",
    "check_values",
    "far_rows",
    "fit_rows",
    "pairs_among",
]

_SAMPLE_ROWS = 2048
_FEW = 0.01
_BLOCK_ROWS = 16_384


def as_rows(x_ND: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the rows as a NumPy array; a torch tensor from any device, of any type, whether or not it wants a gradient."""
    if hasattr(x_ND, "detach"):  # a tensor: torch is not imported to ask
        tensor = x_ND.detach().cpu()
        return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())
    return np.asarray(x_ND)


def check_config(kind: type[Tokenizer], config: Any) -> None:  # noqa: ANN401  each kind has its own
    """Raise `ValueError` for a config of another kind's class, `FitError` for a device that this machine does not have."""
    if not isinstance(config, kind.config_type):
        msg = f"{kind.__name__}.fit takes a {kind.config_type.__name__}, got {type(config).__name__}"
        raise ValueError(msg)
    check_present(config.device, kind.kind)


def check_fit(x_ND: npt.ArrayLike, config: Any, kind: type[Tokenizer]) -> npt.NDArray[Any]:  # noqa: ANN401  TokenizerSettings
    """Return the rows as an array, shape and number checked, and config and device as by `check_config`; not their values."""
    check_config(kind, config)
    x = as_rows(x_ND)
    if x.ndim != 2 or x.shape[1] < 1:
        msg = f"vectors must have shape [rows, dimensions], got {x.shape}"
        raise FitError(msg, kind=kind.kind, shape=x.shape)
    widest = max(config.widths)
    if len(x) < widest:
        msg = f"{widest} codes need at least {widest} rows, got {len(x)}: lower widths or let them follow the number of items"
        raise FitError(msg, kind=kind.kind, needed=widest, rows=len(x))
    return x


def check_present(device: str, kind: str) -> None:
    """Raise `FitError` where `device` is a GPU that torch does not find here."""
    if device == "cpu":
        return
    import torch  # here, because it takes three seconds that fits on the CPU need not spend

    number = int(device.partition(":")[2] or 0)
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        msg = f"{kind} is to be fitted on {device}, and torch finds {found} CUDA devices here: set device to cpu, or install CUDA"
        raise FitError(msg, kind=kind, device=device, found=found)


def fit_rows(
    x_ND: npt.ArrayLike,
    config: Any,  # noqa: ANN401  TokenizerSettings
    kind: type[Tokenizer],
    *,
    pairs_P2: Int64Array | None = None,
) -> tuple[Float32Array, Int64Array]:
    """Return the rows to fit on and their numbers, ascending: all, or a seeded sample of ``config.max_fit_rows``.

    With `pairs_P2` half of the sample at most is rows of pairs, drawn pair by pair before the others: of one row in ten drawn by
    itself, one pair in a hundred is left. Where all are taken and are float32 side by side, what comes back is `x_ND` itself: read
    it, never write.

    Raises `FitError` for a wrong shape, fewer rows than codes of a level, NaN or infinity, rows too far from the others for the
    kind, a device that is not there; `ValueError` for a config of another class.
    """
    x = check_fit(x_ND, config, kind)
    rows, chosen = np.arange(len(x)), x
    if len(x) > config.max_fit_rows:
        rng = np.random.default_rng([config.seed, len(config.widths)])
        if pairs_P2 is None or not len(pairs_P2):
            rows = np.sort(rng.choice(len(x), config.max_fit_rows, replace=False))
        else:
            rows = _rows_with_pairs(len(x), pairs_P2, config.max_fit_rows, rng)
        chosen = x[rows]
    chosen = np.ascontiguousarray(chosen, dtype=np.float32)
    check_values(chosen, rows, kind)
    return chosen, rows


def check_values(x_ND: Float32Array, rows_N: npt.NDArray[np.integer[Any]], kind: type[Tokenizer]) -> None:
    """Raise `FitError` for rows that cannot be fitted: NaN, infinity, or too far from the others for this kind."""
    if not all_finite(x_ND):
        finite = np.isfinite(x_ND).all(axis=1)
        num_bad = int((~finite).sum())
        msg = f"{num_bad} of {len(rows_N)} vectors hold NaN or infinity, the first is row {rows_N[~finite].min()}: remove them"
        raise FitError(msg, kind=kind.kind, rows=num_bad)
    if kind.farthest is not None:
        far, distances, usual = far_rows(x_ND, kind.farthest)
        if len(far):
            worst = int(distances.argmax())
            msg = (
                f"{len(far)} of {len(rows_N)} vectors lie more than {kind.farthest:g} times as far from the middle as most, which"
                f" would decide all codes of {kind.kind}; the farthest is row {rows_N[far[worst]]}, at {distances[worst]:.3g} where"
                f" {usual:.3g} is usual: remove or clip them"
            )
            raise FitError(msg, kind=kind.kind, rows=len(far), farthest=int(rows_N[far[worst]]), distance=float(distances[worst]))


def far_rows(
    x_ND: Float32Array | Float64Array, times: float, rows_N: Int64Array | None = None
) -> tuple[Int64Array, Float64Array, float]:
    """Return the rows more than `times` the usual distance from the middle, their distances, and the usual distance.

    Of `rows_N` alone where these are given, as places in it.

    The middle is the median per dimension, the usual distance the median over rows that are not at the middle, both of 2,048 rows
    spread evenly: no single row moves them. Where fewer than one in a hundred is not at the middle, the middle's own length is the
    usual distance if that is less. Memory: 16 bytes per value of 16,384 rows.

    >>> far_rows(np.float32([[0], [1], [2], [3], [900]]), 100)[0].tolist()
    [4]
    """
    rows_N = np.arange(len(x_ND)) if rows_N is None else rows_N
    num_sampled = min(len(rows_N), _SAMPLE_ROWS)
    sample_SD = x_ND[rows_N[np.arange(num_sampled) * len(rows_N) // num_sampled]].astype(np.float64)
    middle_D = np.median(sample_SD, axis=0)
    usual_S = np.sqrt(np.square(sample_SD - middle_D).sum(axis=1))
    usual = float(np.median(usual_S[usual_S > 0])) if usual_S.any() else np.inf
    if (usual_S > 0).mean() < _FEW and middle_D.any():  # the odd rows would be what is usual: copies are as large as they are
        usual = min(usual, float(np.linalg.norm(middle_D)))
    if not np.isfinite(usual):
        return np.empty(0, np.int64), np.empty(0), 0.0
    found, far = [], []
    for start in range(0, len(rows_N), _BLOCK_ROWS):
        distances_B = np.sqrt(np.square(x_ND[rows_N[start : start + _BLOCK_ROWS]] - middle_D).sum(axis=1))
        rows_B = np.flatnonzero(distances_B > times * usual)
        found.append(rows_B + start)
        far.append(distances_B[rows_B])
    return np.concatenate(found), np.concatenate(far), usual


def check_facts(facts: ItemFacts | None, needs: frozenset[str], kind: str, num_rows: int) -> ItemFacts:
    """Return `facts`, which hold what `kind` needs of each of the rows.

    Raises `FitError` where one is missing, `ValueError` where one is of other rows or of another shape.
    """
    if facts is None:
        msg = f"tokenizer {kind} needs {', '.join(sorted(needs))} of the items: pass facts"
        raise FitError(msg, kind=kind, missing=sorted(needs))
    facts.require(needs, kind)
    for name in ("item_hashes_N", "first_seen_N", "categories_N", "collaborative_NC"):
        values = getattr(facts, name)
        if values is not None and len(values) != num_rows:
            msg = f"{num_rows} vectors, but {name} of {len(values)} items"
            raise ValueError(msg)
    collaborative_NC = facts.collaborative_NC
    if collaborative_NC is not None and (collaborative_NC.ndim != 2 or not np.isfinite(collaborative_NC).all()):
        msg = f"collaborative vectors must be finite and of shape [rows, dimensions], got shape {collaborative_NC.shape}"
        raise ValueError(msg)
    _check_pairs(facts.pairs_P2, num_rows)
    return facts


def _check_pairs(pairs_P2: Int64Array | None, num_rows: int) -> None:
    if pairs_P2 is None:
        return
    if pairs_P2.ndim != 2 or pairs_P2.shape[1] != 2 or pairs_P2.dtype.kind not in "iu":
        msg = f"pairs must be whole numbers of shape [pairs, 2], got {pairs_P2.dtype} {pairs_P2.shape}"
        raise ValueError(msg)
    if pairs_P2.size and (pairs_P2.min() < 0 or pairs_P2.max() >= num_rows):
        msg = f"pairs name rows {pairs_P2.min()} to {pairs_P2.max()}, but there are {num_rows}"
        raise ValueError(msg)


def pairs_among(pairs_P2: Int64Array, rows: Int64Array, num_rows: int) -> Int64Array:
    """Return the pairs of which both are among `rows`, named by their place there.

    >>> pairs_among(np.array([[0, 2], [1, 2]]), np.array([1, 2]), 3).tolist()
    [[0, 1]]
    """
    place_N = np.full(num_rows, -1)
    place_N[rows] = np.arange(len(rows))
    placed_P2 = place_N[pairs_P2]
    kept_P2: Int64Array = placed_P2[(placed_P2 >= 0).all(axis=1)]
    return kept_P2


def check_trained(kind: str, *parts: npt.NDArray[Any] | float) -> None:
    """Raise `FitError` where training left NaN or infinity: the rows were finite, so the fault is the training's."""
    if not all(np.isfinite(part).all() for part in parts):
        msg = f"the training of {kind} diverged (its numbers are no longer finite, the vectors are): lower learning_rate"
        raise FitError(msg, kind=kind)


def _rows_with_pairs(num_rows: int, pairs_P2: Int64Array, wanted: int, rng: np.random.Generator) -> Int64Array:
    """Return `wanted` rows, ascending: those of pairs in a drawn order while they fill half, then others by lot."""
    drawn_P2 = pairs_P2[rng.permutation(len(pairs_P2))]
    rows, first = np.unique(drawn_P2, return_index=True)
    by_lot = rows[np.argsort(first, kind="stable")]
    paired = by_lot[: wanted // 2 if wanted > 1 else wanted]
    others = np.setdiff1d(np.arange(num_rows), paired)
    return np.sort(np.concatenate([paired, rng.choice(others, wanted - len(paired), replace=False)]))
