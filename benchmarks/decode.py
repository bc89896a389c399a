"""How many users per second the beam search through the trie serves, against asking of every prefix whether it exists.

    python benchmarks/decode.py [--items N ...] [--levels L] [--users B] [--batch B] [--runs R] [--threads T] [--json]

Timed: `search`, from a model's log-probabilities to items, 50 beams, 10 results; a batch is a call, and `p50` and `p99` are a
call's milliseconds with one user. The model is a table look-up (log-probabilities of a code given the one before and the user), so
that what is measured is the search. SIDs are unique; half are spread evenly, half crowd on few codes (shares fall as 1/rank).

The peer is a beam search as recommenders without a trie do it: every beam is extended by every code, and each extended prefix is
compared with each valid prefix of that length (one number a prefix, whole tensors, blocks of 64 MB); the rest is masked. It runs
beside ours in the same process for one user, in turns. `ratio_lookup` is the same with a binary search in the sorted valid
prefixes instead, the best that a plain check can do. `equal` says that all three gave the same items with the same scores.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from machine import in_turns, machine, ratio
from torch import Tensor

from sidlake.generative.beam_search import search
from sidlake.generative.trie_tensors import TrieTensors
from sidlake.tokenizers.trie import build_trie

SIZES = (12_000, 1_000_000)
WIDTH = 256
BEAMS = 50
RESULTS = 10
SEED = 0
BLOCK = 2**26

Check = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=SIZES)
    parser.add_argument("--levels", type=int, choices=(3, 4), default=3)
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    measured = [measure(items, arguments.levels, arguments) for items in arguments.items]
    result = {
        "users_per_s": min(row["users_per_s"] for row in measured),
        "ratio_brute_force": min(row["ratio_brute_force"] for row in measured),
        "equal": all(row["equal"] for row in measured),
        "sizes": measured,
        "beams": BEAMS,
        "seed": SEED,
        "threads": torch.get_num_threads(),
    } | machine("torch", "numpy")
    if arguments.json:
        print(json.dumps(result))
        return
    for row in measured:
        print(
            f"{row['items']:>9,} items, {row['levels']} levels: {row['users_per_s']:>7,.0f} users/s, one user p50 {row['p50']} ms "
            f"p99 {row['p99']} ms, {row['ratio_brute_force']} x brute force, {row['ratio_lookup']} x look-up, equal {row['equal']}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class TableScorer:
    """Log-probabilities (B, W, K) of a code given the one before it and the user, float32: a look-up and a sum."""

    user_BK: Tensor
    table_KK: Tensor

    @property
    def num_users(self) -> int:
        """Return the number of users."""
        return len(self.user_BK)

    @property
    def device(self) -> torch.device:
        """Return where the table lies."""
        return self.user_BK.device

    def log_probs(self, prefix_BWP: Tensor) -> Tensor:
        """Return (B, W, K) after the tokens of each beam."""
        if prefix_BWP.shape[2] == 0:
            return self.user_BK[:, None]
        return self.table_KK[prefix_BWP[:, :, -1]] + self.user_BK[:, None]

    def of(self, users: slice) -> "TableScorer":
        """Return the same model for these users."""
        return TableScorer(self.user_BK[users], self.table_KK)


def scorer_of(num_users: int) -> TableScorer:
    generator = torch.Generator().manual_seed(SEED)
    users = torch.randn((num_users, WIDTH), generator=generator)
    table = torch.randn((WIDTH, WIDTH), generator=generator) * 2
    return TableScorer(users.log_softmax(-1), table.log_softmax(-1))


def unique_codes(num_items: int, levels: int, seed: int = SEED) -> np.ndarray:
    """Return unique int32 codes (num_items, levels): half spread evenly, half with shares that fall as 1/rank."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, WIDTH + 1)
    found = np.zeros((0, levels), dtype=np.int32)
    while len(found) < num_items:
        even = rng.integers(0, WIDTH, (num_items // 2, levels))
        crowded = rng.choice(WIDTH, (num_items - num_items // 2, levels), p=shares / shares.sum())
        found = np.unique(np.concatenate([found, even, crowded]).astype(np.int32), axis=0)
    return found[np.sort(rng.choice(len(found), num_items, replace=False))]


def checked_search(scorer: TableScorer, valid: list[Tensor], check: Check) -> tuple[np.ndarray, np.ndarray]:
    """Return what `search` returns, by extending every beam by every code and masking what `check` does not find in `valid`."""
    num_users = scorer.num_users
    key_BW = torch.zeros((num_users, 1), dtype=torch.int64)
    score_BW = torch.zeros((num_users, 1))
    for level, keys in enumerate(valid):
        prefix_BWP = (key_BW % WIDTH)[:, :, None] if level else torch.zeros((num_users, 1, 0), dtype=torch.long)
        score_BC = (score_BW[:, :, None] + scorer.log_probs(prefix_BWP)).flatten(1)
        key_BC = (key_BW[:, :, None] * WIDTH + torch.arange(WIDTH)).flatten(1)
        score_BC = score_BC.masked_fill(~check(key_BC, keys), -torch.inf)
        kept = RESULTS if level == len(valid) - 1 else BEAMS
        score_BW, order_BW = (part[:, :kept] for part in score_BC.sort(dim=1, descending=True, stable=True))
        key_BW = key_BC.gather(1, order_BW)
    return torch.searchsorted(valid[-1], key_BW).numpy(), score_BW.numpy()


def in_each(key_BC: Tensor, valid: Tensor) -> Tensor:
    """Return whether each key equals one of the valid ones, by comparing it with all."""
    keys = key_BC.flatten()
    step = max(1, BLOCK // len(valid))
    found = [(keys[start : start + step, None] == valid).any(dim=1) for start in range(0, len(keys), step)]
    return torch.cat(found).view(key_BC.shape)


def in_sorted(key_BC: Tensor, valid: Tensor) -> Tensor:
    """Return whether each key equals one of the valid ones, which ascend."""
    return valid[torch.searchsorted(valid, key_BC).clamp(max=len(valid) - 1)] == key_BC


def valid_prefixes(codes: np.ndarray) -> list[Tensor]:
    """Return the distinct prefixes of each length as one ascending int64 number each."""
    keys, valid = np.zeros(len(codes), dtype=np.int64), []
    for level in range(codes.shape[1]):
        keys = keys * WIDTH + codes[:, level]
        valid.append(torch.from_numpy(np.unique(keys)))
    return valid


def trie_of(codes: np.ndarray) -> TrieTensors:
    trie = build_trie(codes, [str(row) for row in range(len(codes))])
    return TrieTensors.from_levels(trie, (WIDTH,) * codes.shape[1])


def measure(num_items: int, levels: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what one catalogue costs, ours and the peers', and whether they agree."""
    codes = unique_codes(num_items, levels)
    trie, valid, scorer = trie_of(codes), valid_prefixes(codes), scorer_of(arguments.users)

    def ours(users: slice) -> tuple[np.ndarray, np.ndarray]:
        return search(scorer.of(users), (0,) * levels, trie, beams=BEAMS, k=RESULTS)

    one = slice(0, 1)
    seconds = in_turns({"ours": lambda: ours(one), "brute": lambda: checked_search(scorer.of(one), valid, in_each)}, repeats=1)
    lookups = in_turns({"ours": lambda: ours(one), "lookup": lambda: checked_search(scorer.of(one), valid, in_sorted)}, repeats=9)
    found, peers = ours(slice(None)), checked_search(scorer, valid, in_sorted)
    brute = checked_search(scorer.of(one), valid, in_each)
    latency = [_seconds(lambda user=user: ours(slice(user, user + 1))) * 1000 for user in range(arguments.users)]
    return {
        "items": num_items,
        "levels": levels,
        "dense_levels": sum(table is not None for table in trie.dense),
        "users_per_s": round(_users_per_s(ours, arguments), 1),
        "p50": round(float(np.percentile(latency, 50)), 3),
        "p99": round(float(np.percentile(latency, 99)), 3),
        "ratio_brute_force": ratio(seconds, "brute", "ours"),
        "ratio_lookup": ratio(lookups, "lookup", "ours"),
        "equal": _same(found, peers) and _same(tuple(part[one] for part in found), brute),
    }


def _users_per_s(ours: Callable[[slice], object], arguments: argparse.Namespace) -> float:
    def everyone() -> None:
        for start in range(0, arguments.users, arguments.batch):
            ours(slice(start, start + arguments.batch))

    everyone()
    return arguments.users / min(_seconds(everyone) for _ in range(arguments.runs))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _same(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
