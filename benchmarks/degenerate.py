"""What every tokenizer and every fusion does with rows, facts and settings that nobody should give it, and somebody will.

    python benchmarks/degenerate.py [--kinds NAME ...] [--json]

Each case ends in one of five ways: *good* (a fit as good as that of tame rows), *named* (one of this project's errors, or a
`ValueError`, whose sentence says what is wrong), *hang* (not done after `LIMIT_S`, some hundred times what a fit takes), *silent*
(a result that is not finite, or far worse than that of tame rows, without a word), *traceback* (any other exception).

Rows come at scales from 1e-30 to 1e30, far from the origin, with one row far from all others, with copies, all the same, few, of
one dimension. A tokenizer is judged by the share of the rows' variance that its codes leave, against the share that the same kind
leaves of the same rows at their ease: centred, at scale 1, without the odd row. A fusion by how its distances between rows rank
against those of the tame rows' fusion.
"""

from __future__ import annotations

import argparse
import json
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import FrameType
from typing import Any

import numpy as np

from sidlake.encoders.fusion.config import FuseConfig
from sidlake.encoders.fusion.fusion import Fusion, FusionConfig
from sidlake.errors import SidlakeError
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.registry import KINDS, tokenizer_config
from sidlake.tokenizers.tokenizer import ItemFacts

LIMIT_S = 60
NUM_ROWS, DIM, WIDTHS = 240, 8, (12, 6)
SCALES = (1e-30, 1e-25, 1e-19, 1e-10, 1e-4, 1e4, 1e10, 1e19, 1e25, 1e30)
OFFSETS = (1e2, 1e4, 1e6, 1e9)
OUTLIERS = (30.0, 1e3, 1e6, 1e10, 1e20, 1e30)
WORSE, MORE = 1.6, 0.08  # what a good fit may leave, against tame rows: so many times as much, and so much of the variance beside
AGREEMENT = 0.9  # of the distances of two fusions, as a correlation

_TRAINED = {"num_steps": 60, "batch_size": 64}
_RQ_VAE = _TRAINED | {"hidden": [16], "latent_dim": 6, "revive_every": 5}
SMALL: dict[str, dict[str, Any]] = {
    "rq_vae": _RQ_VAE,
    "contrastive_rq_vae": _RQ_VAE,
    "letter": _RQ_VAE | {"num_groups": 3, "regroup_every": 20},
    "residual_vq": _TRAINED,
    "qinco": _TRAINED | {"latent_dim": 6, "hidden_dim": 8, "candidates": 4},
    "append_digit": {"inner": "balanced_kmeans", "fields": {"widths": list(WIDTHS)}, "digits": 8},
    "relabelled": {"inner": "beam_kmeans", "fields": {"widths": list(WIDTHS)}},
}
FUSIONS = ("concat", "plain", "rank", "pca", "cca", "align", "contrastive", "neighbours")
_FUSE: dict[str, dict[str, Any]] = {
    "contrastive": {"num_steps": 20, "batch_size": 64},
    "neighbours": {"hidden": 8, "num_epochs": 2, "num_neighbours": 20},
}
SETTINGS: dict[str, Any] = {
    "seed": (-1, 1.5, "0"),
    "widths": ((), (0,), (4.0, 4.0), (4, -1), "44", 4),
    "learning_rate": (float("nan"), -1.0, 0.0),
    "device": ("gpu", "cuda:x", "cpu:0", None),
    "max_fit_rows": (0, 1.5),
    "num_steps": (-1, 2.5),
    "batch_size": (0,),
    "latent_dim": (0,),
    "hidden": ((0,), (4.5,)),
    "num_groups": (0,),
    "regroup_every": (0,),
    "warm_start": (1.0, float("nan")),
    "beta": (-1.0, float("nan")),
    "sinkhorn_epsilon": (-1.0, float("inf")),
    "sinkhorn_iterations": (-1,),
    "revive_every": (-1,),
    "alignment": (float("nan"),),
    "diversity": (-1.0,),
    "max_iterations": (0, 1.5),
    "tolerance": (float("nan"), -1.0),
    "exact_rows": (0,),
    "beam": (0, 65),
    "rotations": (-1,),
    "hashed_levels": (-1, 9),
    "digits": (1, 2.5),
    "candidates": (0,),
    "hidden_dim": (0,),
    "num_blocks": (0,),
}


class Hang(BaseException):
    """A case was not done in time; no `Exception`, so that nothing on the way takes it for one of its own."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is done to a kind, and what it did."""

    kind: str
    name: str
    run: Callable[[], str]


def tame(num_rows: int = NUM_ROWS, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Return clusters of clusters about the origin, float64 [N, D], of variance 1 or so."""
    rng = np.random.default_rng(seed)
    coarse, fine = rng.standard_normal((12, dim)), 0.4 * rng.standard_normal((9, dim))
    return (
        coarse[rng.integers(12, size=num_rows)] + fine[rng.integers(9, size=num_rows)] + 0.1 * rng.standard_normal((num_rows, dim))
    )


def with_outlier(x: np.ndarray, size: float) -> np.ndarray:
    """Return the rows with the last one pushed out to `size` in every dimension."""
    far = x.copy()
    far[-1] = size
    return far


def odd_rows() -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Yield a name, the rows, and the same rows at their ease, or None where there is nothing to be good at."""
    x = tame()
    for scale in SCALES:
        yield f"scale {scale:g}", (x * scale).astype(np.float32), x
    for offset in OFFSETS:
        far = (x + offset).astype(np.float32)
        yield f"offset {offset:g}", far, far.astype(np.float64) - far.mean(axis=0, dtype=np.float64)
    for size in OUTLIERS:
        yield f"outlier {size:g}", with_outlier(x, size).astype(np.float32), x
    yield "ten rows, many copies", x[np.arange(NUM_ROWS) % 10].astype(np.float32), None
    yield "two rows, many copies", x[np.arange(NUM_ROWS) % 2].astype(np.float32), None
    yield "two rows, many copies, one odd", with_outlier(x[np.arange(NUM_ROWS) % 2], 50.0).astype(np.float32), None
    for value in (0.0, 0.5, 1e-38, 1e30):
        yield f"all {value:g}", np.full((NUM_ROWS, DIM), value, dtype=np.float32), None
    for number in (0, 1, 11, 12, 13):
        yield f"{number} rows", x[:number].astype(np.float32), None
    for dim in (0, 1, 2):
        yield f"{dim} dimensions", x[:, :dim].astype(np.float32), None
    for value in (np.nan, np.inf):
        yield f"one {value:g}", with_outlier(x, value).astype(np.float32), None
    yield "no matrix", x[0].astype(np.float32), None


def facts_for(num_rows: int) -> ItemFacts:
    """Return facts of every sort."""
    rng = np.random.default_rng(0)
    first = rng.integers(max(num_rows, 1), size=400)
    return ItemFacts(
        item_hashes_N=item_hashes([f"item-{row}" for row in range(num_rows)]),
        first_seen_N=np.arange(num_rows),
        categories_N=[("all", "ab"[row % 2], str(row % 7)) for row in range(num_rows)],
        pairs_P2=np.stack([first, (first + 1) % max(num_rows, 1)], axis=1),
        collaborative_NC=rng.standard_normal((num_rows, 5)).astype(np.float32),
    )


def fields_of(kind: str) -> dict[str, Any]:
    """Return a small config's fields."""
    return dict(SMALL[kind]) if kind in ("append_digit", "relabelled") else {"widths": list(WIDTHS), **SMALL.get(kind, {})}


def left_by(kind: str, x: np.ndarray, facts: ItemFacts | None = None) -> tuple[str, np.ndarray]:
    """Return what is wrong with the fit's numbers, or nothing, and how far each row is from its code, relative to their spread."""
    found, config = tokenizer_config(kind, fields_of(kind))
    facts = facts or facts_for(len(x))
    model = found.fit(x, config, facts=facts)
    codes_NL, norms_N = model.encode_with_norms(x, facts=facts)
    decoded = model.decode(codes_NL).astype(np.float64)
    if not (np.isfinite(norms_N).all() and np.isfinite(decoded).all()):
        return "norms or decoded vectors are not finite", np.zeros(len(x))
    if (codes_NL < 0).any() or (codes_NL >= np.array(model.widths)).any():
        return "codes out of range", np.zeros(len(x))
    x64 = x.astype(np.float64)
    largest = max(float(np.abs(x64).max()), float(np.abs(decoded).max())) or 1.0
    return "", np.sqrt(np.square((x64 - decoded) / largest).sum(axis=1)) * largest


@cache
def _tame_share(kind: str, content: bytes, num_rows: int) -> float:
    x = np.frombuffer(content).reshape(num_rows, -1)
    return _share(left_by(kind, x.astype(np.float32))[1], x)


def _share(left_N: np.ndarray, x_ND: np.ndarray) -> float:
    """Return the share of the variance of all rows but the last (which may be the odd one) that is left.

    Of rows without variance it is the mean square of what is left, relative to the largest value.
    """
    rows = x_ND[:-1].astype(np.float64)
    scale = float(np.abs(rows).max()) or 1.0
    spread = np.square((rows - rows.mean(axis=0)) / scale).sum()
    return float(np.square(left_N[:-1] / scale).sum() / spread) if spread else float(np.square(left_N[:-1] / scale).mean())


def tokenizer_outcome(kind: str, x: np.ndarray, ease: np.ndarray | None) -> str:
    """Return ``good`` or what is silently wrong; errors pass."""
    wrong, left_N = left_by(kind, x)
    if wrong:
        return wrong
    share = _share(left_N, x)
    if ease is None:  # copies and constants: no worse than the mean
        return "good" if share <= 1.2 + MORE else f"leaves {share:.3g} of the variance"
    usual = _tame_share(kind, ease.tobytes(), len(ease))
    return "good" if share <= WORSE * usual + MORE else f"leaves {share:.3g} of the variance, of tame rows {usual:.3g}"


def fused(kind: str, x: np.ndarray, pairs_P2: np.ndarray | None = None) -> np.ndarray:
    """Return what the fusion of these rows with others makes of both."""
    other = tame(len(x), 5, seed=1).astype(np.float32)
    vectors, present = {"text": x, "behaviour": other}, {"text": np.ones(len(x), bool), "behaviour": np.arange(len(x)) % 5 > 0}
    weights = (("text", 1.0, min(6, x.shape[-1])), ("behaviour", 1.0 if kind == "plain" else 0.7, 4))
    config = FusionConfig(weights=weights, fuse=FuseConfig(kind=kind, **_FUSE.get(kind, {})))  # type: ignore[arg-type]
    if pairs_P2 is None and kind in ("contrastive", "neighbours"):
        pairs_P2 = facts_for(len(x)).pairs_P2
    return Fusion.fit(vectors, present, config, pairs_P2=pairs_P2).transform(vectors, present)


@cache
def _tame_fused(kind: str, content: bytes, num_rows: int) -> np.ndarray:
    return fused(kind, np.frombuffer(content).reshape(num_rows, -1).astype(np.float32))


def fusion_outcome(kind: str, x: np.ndarray, ease: np.ndarray | None) -> str:
    """Return ``good`` or what is silently wrong; errors pass."""
    made = fused(kind, x)
    if not np.isfinite(made).all():
        return "fused rows are not finite"
    if kind == "plain":
        return "good" if np.array_equal(made[:, : x.shape[-1]], x) else "plain rows are not as they were"
    if ease is None:
        return "good"
    usual = _tame_fused(kind, ease.tobytes(), len(ease))
    agreement = float(np.corrcoef(_distances(made[:-1]), _distances(usual[:-1]))[0, 1])
    return "good" if agreement >= AGREEMENT else f"distances agree by {agreement:.3f} with those of tame rows"


def _distances(x: np.ndarray) -> np.ndarray:
    rows, others = np.triu_indices(len(x), 1)
    return np.linalg.norm(x[rows].astype(np.float64) - x[others], axis=1)


def refused(what: str, act: Callable[[], object]) -> Callable[[], str]:
    """Return a case that is good only where `act` raises."""

    def run() -> str:
        act()
        return f"{what} was taken"

    return run


def cases(kind: str) -> Iterator[Case]:
    """Yield the cases of a tokenizer or, as ``fusion.<kind>``, of a fusion."""
    if kind.startswith("fusion."):
        for name, x, ease in odd_rows():
            yield Case(kind=kind, name=name, run=lambda x=x, ease=ease: fusion_outcome(kind.removeprefix("fusion."), x, ease))
        yield from _bad_fusions(kind.removeprefix("fusion."))
        return
    for name, x, ease in odd_rows():
        yield Case(kind=kind, name=name, run=lambda x=x, ease=ease: tokenizer_outcome(kind, x, ease))
    yield from _bad_settings(kind)
    yield from _bad_facts(kind)


def _bad_fusions(kind: str) -> Iterator[Case]:
    x = tame().astype(np.float32)
    for name, value in (("dim", 0), ("dim", 2.5), ("num_steps", 0), ("num_steps", 2.5), ("hidden", 0), ("seed", -1), ("seed", 1.5)):
        act = lambda name=name, value=value: FuseConfig(kind=kind, **{name: value})  # type: ignore[arg-type]  # noqa: E731
        yield Case(kind=f"fusion.{kind}", name=f"{name}={value!r}", run=refused(f"{name}={value!r}", act))
    for weights in ((), (("text", float("nan"), 4),), (("text", 1.0, 2.5),), (("text", 1.0, 4), ("text", 1.0, 4))):
        act = lambda weights=weights: FusionConfig(weights=weights, fuse=FuseConfig(kind=kind))  # type: ignore[arg-type]  # noqa: E731
        yield Case(kind=f"fusion.{kind}", name=f"weights {weights!r}", run=refused(f"weights {weights!r}", act))
    if kind in ("contrastive", "neighbours"):
        for number, pairs_P2 in enumerate(
            (np.array([[0, NUM_ROWS]]), np.array([[-1, 0]]), np.array([0, 1]), np.array([[0.0, 1.0]]))
        ):
            act = lambda pairs_P2=pairs_P2: fused(kind, x, pairs_P2)  # noqa: E731
            yield Case(kind=f"fusion.{kind}", name=f"bad pairs {number}", run=refused("bad pairs", act))


def _bad_settings(kind: str) -> Iterator[Case]:
    found, _ = tokenizer_config(kind, fields_of(kind))
    own = {name for name in found.config_type.__dataclass_fields__ if name not in ("inner", "fields")}
    for field in sorted(own & set(SETTINGS)):
        for value in SETTINGS[field]:
            if field == "num_steps" and kind == "qinco" and value == 0:
                continue
            act = lambda field=field, value=value: found.config_type(**_frozen(fields_of(kind)) | {field: value})  # noqa: E731
            yield Case(kind=kind, name=f"{field}={value!r}", run=refused(f"{field}={value!r}", act))
    x = tame().astype(np.float32)
    if "device" in own and not _has_cuda():
        config = found.config_type(**_frozen(fields_of(kind)) | {"device": "cuda"})
        act = lambda: found.fit(x, config, facts=facts_for(len(x)))  # noqa: E731
        yield Case(kind=kind, name="cuda without CUDA", run=refused("a device that is not there", act))
    act = lambda: found.fit(x, object(), facts=facts_for(len(x)))  # noqa: E731
    yield Case(kind=kind, name="a config of another class", run=refused("a config of another class", act))


def _bad_facts(kind: str) -> Iterator[Case]:
    found, config = tokenizer_config(kind, fields_of(kind))
    x, facts = tame().astype(np.float32), facts_for(NUM_ROWS)
    bad: dict[str, tuple[Any, ...]] = {
        "item_hashes_N": (facts.item_hashes_N[:-1], None),  # type: ignore[index]
        "first_seen_N": (facts.first_seen_N[:-1], None),  # type: ignore[index]
        "categories_N": (facts.categories_N[:-1], None),  # type: ignore[index]
        "pairs_P2": (
            np.array([[0, NUM_ROWS]]),
            np.array([[-1, 0]]),
            np.array([0, 1]),
            np.array([[0.0, 1.0]]),
            np.empty((0, 2), int),
            None,
        ),
        "collaborative_NC": (
            facts.collaborative_NC[:-1],  # type: ignore[index]
            facts.collaborative_NC[:, 0],  # type: ignore[index]
            np.full((NUM_ROWS, 5), np.nan, np.float32),
            None,
        ),
    }
    for name in sorted(found.fit_needs):
        for number, value in enumerate(bad[name]):
            act = lambda name=name, value=value: found.fit(x, config, facts=replace(facts, **{name: value}))  # noqa: E731
            yield Case(kind=kind, name=f"bad {name} {number}", run=refused(f"bad {name}", act))
    if found.warm_starts:
        act = lambda: found.fit(x, config, facts=replace(facts, former_codes_NL=np.zeros((3, 2), np.int32)))  # noqa: E731
        yield Case(kind=kind, name="former codes of other rows", run=refused("former codes of other rows", act))


def _frozen(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


@cache
def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def outcome(case: Case) -> tuple[str, str]:
    """Run a case and return how it ended and what there is to say of it."""

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = case.run()
        return ("good", "") if said == "good" else ("silent", said)
    except Hang:
        return "hang", f"not done after {LIMIT_S} s"
    except (SidlakeError, ValueError) as error:
        return "named", str(error)
    except Exception as error:  # what it is to find
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def prepare(kind: str) -> None:
    """Fit tame rows once, so that what is compiled on first use is, before there is a limit to the time."""
    x = tame().astype(np.float32)
    if kind.startswith("fusion."):
        fused(kind.removeprefix("fusion."), x)
    else:
        left_by(kind, x)


def all_kinds() -> list[str]:
    """Return the tokenizers and the fusions."""
    return [*KINDS, *(f"fusion.{kind}" for kind in FUSIONS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=all_kinds())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = []
    for kind in arguments.kinds:
        prepare(kind)
        found += [(case, *outcome(case)) for case in cases(kind)]
    counts = Counter(how for _, how, _ in found)
    wrong = [
        {"kind": case.kind, "case": case.name, "outcome": how, "said": said}
        for case, how, said in found
        if how in ("hang", "silent", "traceback")
    ]
    summary = {"cases": len(found), "good": counts["good"], "named": counts["named"]}
    summary |= {"hangs": counts["hang"], "silent": counts["silent"], "tracebacks": counts["traceback"]}
    if arguments.json:
        print(json.dumps(summary | {"wrong": wrong}))
        return
    for row in wrong:
        print(f"{row['outcome']:10} {row['kind']:22} {row['case']:34} {row['said']}")
    print(", ".join(f"{value} {name}" for name, value in summary.items()))


if __name__ == "__main__":
    main()
