"""A release's sequences, streamed: every one once an epoch, the same after a break, and errors that say what is wrong."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch.multiprocessing
import warehouse_sample as sample
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed
from torchdata.stateful_dataloader import StatefulDataLoader

from sidlake.errors import ArtifactError, ContractError, NotFoundError
from sidlake.generative.streaming.hugging_face import hugging_face_sequences
from sidlake.generative.streaming.row_ranges import ranges_of
from sidlake.generative.streaming.sequence_files import SequenceFiles
from sidlake.generative.streaming.sequence_stream import SequenceStream
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.releases import publish
from sidlake.warehouse.tables import Warehouse

NUM_USERS = 103


def histories(users: range) -> pa.Table:
    """Return a train and a test row per user, over 12 items."""
    names, codes = sample.item_ids(12), sample.codes_of(12)
    rows = []
    for user in users:
        walk = [(user + step) % 12 for step in range(2 + user % 5)]
        row = {"user_id": f"u{user:03d}", "item_ids": [names[i] for i in walk], "codes": [c for i in walk for c in codes[i]]}
        rows += [row | {"split": "train", "target": None}, row | {"split": "test", "target": names[(user + 7) % 12]}]
    return pa.Table.from_pylist(rows, CONTRACTS["user_sequences"])


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Return the address of a warehouse whose first release has sequences in three files, and whose second has none."""
    warehouse = Warehouse.create_or_open(tmp_path_factory.mktemp("stream") / "lake")
    tables = sample.write(warehouse)
    tables["user_sequences"] = warehouse.overwrite("user_sequences", histories(range(60)), run_id="run")
    for users in (range(60, 61), range(61, NUM_USERS)):
        tables["user_sequences"] = warehouse.append("user_sequences", histories(users), run_id="run")
    publish(warehouse, sample.draft(tables), expected_parent=None)
    del tables["user_sequences"]
    publish(warehouse, sample.draft(tables), expected_parent="r000001")
    return str(warehouse.url)


def stream(lake: str, **options) -> SequenceStream:
    return SequenceStream(lake, **({"release": "r000001", "block_rows": 16} | options))


def users_of(rows) -> list[str]:
    return [row["user_id"] for row in rows]


EVERYONE = [f"u{user:03d}" for user in range(NUM_USERS)]


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 7), st.integers(0, 3))
def test_every_row_has_one_shard_and_shards_are_even(group_rows, num_shards, seed):
    shards = [
        ranges_of(group_rows, shard=shard, num_shards=num_shards, order=np.random.default_rng(seed)) for shard in range(num_shards)
    ]
    rows = Counter((group, row) for ranges in shards for group, start, stop in ranges for row in range(start, stop))
    assert rows == Counter({(group, row): 1 for group, size in enumerate(group_rows) for row in range(size)})
    sizes = [sum(stop - start for _, start, stop in ranges) for ranges in shards]
    assert max(sizes) - min(sizes) <= 1


def test_two_ranks_of_two_workers_give_every_sequence_once_an_epoch(lake):
    for epoch in (0, 1):
        found = []
        for rank in (0, 1):
            one = stream(lake, rank=rank, world_size=2)
            one.set_epoch(epoch)
            batches = list(StatefulDataLoader(one, batch_size=7, num_workers=2, collate_fn=list))
            found.append(users_of(row for batch in batches for row in batch))
        assert sorted(found[0] + found[1]) == EVERYONE
        assert min(map(len, found)) > NUM_USERS // 3


def test_the_order_is_given_by_seed_and_epoch_and_blocks_bound_the_memory(lake):
    def order(epoch=0, **options):
        one = stream(lake, **options)
        one.set_epoch(epoch)
        return users_of(one)

    assert order() == order() != order(seed=1)
    assert order() != order(epoch=1)
    assert order(block_rows=1) == order(block_rows=1, seed=1)  # as the files have them
    assert sorted(order(block_rows=1)) == EVERYONE
    assert sorted(order(block_rows=1000)) == EVERYONE


def test_rows_are_those_of_the_table(lake):
    rows = {row["user_id"]: row for row in stream(lake, split="test")}
    expected = [row for row in histories(range(NUM_USERS)).to_pylist() if row["split"] == "test"]
    assert rows == {row["user_id"]: {name: row[name] for name in ("user_id", "item_ids", "codes", "target")} for row in expected}


@pytest.mark.parametrize("stop", [1, 5, 14])
def test_a_loader_goes_on_at_the_batch_after_the_last_one(lake, stop):
    def loader():
        one = stream(lake)
        one.set_epoch(3)
        return StatefulDataLoader(one, batch_size=7, num_workers=2, collate_fn=users_of)

    whole, first = list(loader()), loader()
    given_first = list(islice(first, stop))
    resumed = StatefulDataLoader(stream(lake), batch_size=7, num_workers=2, collate_fn=users_of)
    if stop:
        resumed.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
        assert given_first + list(resumed) == whole


def test_a_stream_goes_on_from_json_and_begins_anew_after_its_end(lake):
    one, other = stream(lake), stream(lake)
    whole, rows = users_of(one), iter(other)
    head = users_of(islice(rows, 40))
    resumed = stream(lake)
    resumed.load_state_dict(json.loads(json.dumps(other.state_dict())))
    assert head + users_of(resumed) == whole
    assert users_of(resumed) == whole
    assert users_of(other) == whole  # broken off, then begun again


def test_a_state_cut_in_half_names_what_it_lacks(lake):
    state = stream(lake).state_dict()
    half = dict(list(state.items())[: len(state) // 2])
    with pytest.raises(ArtifactError, match="lacks block_rows, shard, num_shards, epoch, given: it was cut short"):
        stream(lake).load_state_dict(half)


@pytest.mark.parametrize(("options", "says"), [({"seed": 4}, "seed 4 against 0"), ({"world_size": 2}, "num_shards 2 against 1")])
def test_a_state_of_another_stream_is_refused(lake, options, says):
    with pytest.raises(ContractError, match=says):
        stream(lake).load_state_dict(stream(lake, **options).state_dict())


def test_a_release_without_sequences_is_named(lake):
    with pytest.raises(NotFoundError, match="r000002 has no sequences"):
        SequenceStream(lake)
    with pytest.raises(NotFoundError, match="r000002 has no sequences"):
        hugging_face_sequences(lake)


def test_a_rank_outside_the_world_and_a_split_that_is_none_are_refused(lake):
    with pytest.raises(ValueError, match=r"rank must be in \[0, 2\)"):
        stream(lake, rank=2, world_size=2)
    with pytest.raises(ContractError, match="the splits are train, valid, test"):
        stream(lake, split="dev")


def read_as_rank(rank: int, lake: str, rendezvous: str, told: str) -> None:
    """Open the stream as one of two processes, each with a seed of its own, and write down what it is told."""
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    sizes = len(list(stream(lake)))
    try:
        stream(lake, seed=rank)
        said = "nothing"
    except ContractError as error:
        said = str(error)
    Path(f"{told}{rank}").write_text(json.dumps([sizes, said]), encoding="utf-8")
    distributed.destroy_process_group()


def test_ranks_that_disagree_are_told_on_every_rank(lake, tmp_path):
    torch.multiprocessing.spawn(read_as_rank, (lake, str(tmp_path / "meet"), str(tmp_path / "told")), nprocs=2)
    told = [json.loads((tmp_path / f"told{rank}").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert sum(size for size, _ in told) == NUM_USERS
    assert all("ranks 0 and 1 read different sequences: seed 0 and 1" in said for _, said in told)


def test_hugging_face_reads_the_same_rows_without_a_file_of_its_own(lake, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    from datasets.distributed import split_dataset_by_node

    dataset = hugging_face_sequences(lake, release="r000001", split="test")
    assert list(dataset) == list(stream(lake, split="test", block_rows=1))
    assert dataset.num_shards == len(SequenceFiles(lake, "r000001").group_rows) == 3
    ranks = [users_of(split_dataset_by_node(dataset, rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(user for rank in ranks for user in rank) == EVERYONE
    assert [name for _, _, files in os.walk(tmp_path) for name in files if not name.endswith(".lock")] == []


def test_the_example_of_the_docs_runs(lake, monkeypatch):
    page = (Path(__file__).parent.parent / "docs" / "training-jobs.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(Path(lake).parent)
    found: dict[str, object] = {}
    for example in examples:
        exec(example.replace("current", "r000001"), found)
    assert found["trained"] == 2 * NUM_USERS
    assert next(iter(found["sequences"])) in list(stream(lake, block_rows=1))
