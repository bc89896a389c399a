"""Whole histories of all users, end to end: what a model that reads a user in one pass is trained on and judged by.

`user_sequences` cuts the histories in front of held-out items to the last few; here they are whole: those of split valid are the
training history, those of split test the training history and the validation target. One flat array serves all three.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from sidlake.errors import ContractError
from sidlake.generative.sequences import Histories, SequenceReader

__all__ = ["Timelines", "whole_histories"]


@dataclass(frozen=True, slots=True, eq=False)
class Timelines:
    """The histories of the three splits, each whole, over one array of items; the users of valid and test are the same."""

    train: Histories
    valid: Histories
    test: Histories


def whole_histories(reader: SequenceReader) -> Timelines:
    """Return the whole histories of the users of `reader`; 8 bytes per interaction.

    Raises `ContractError` where valid and test have no users, or not the same, or a user is absent from train.
    """
    splits = {split: reader.histories(split) for split in ("valid", "test")}
    for split, users in splits.items():
        if not len(users):
            msg = f"no users in split {split} of user_sequences, at least one is needed; a user needs three interactions"
            raise ContractError(msg, split=split)
    valid, test = splits["valid"], splits["test"]
    rows = [pc.index_in(ids, value_set=reader.train.user_ids) for ids in (valid.user_ids, test.user_ids)]
    if any(found.null_count for found in rows) or not pc.all(pc.equal(*rows)).as_py():
        msg = "the users of splits train, valid and test of user_sequences differ; build the table anew with the step sequences"
        raise ContractError(msg, valid=len(valid), test=len(test))
    train = reader.train.at(np.asarray(rows[0].to_numpy(), dtype=np.int64))
    lengths_U = train.ends_U - train.starts_U
    ends_U = np.cumsum(lengths_U + 1)
    starts_U = ends_U - lengths_U - 1
    items_S = np.empty(int(ends_U[-1]), dtype=np.int64)
    is_target_S = np.zeros(len(items_S), dtype=bool)
    is_target_S[ends_U - 1] = True
    items_S[is_target_S] = valid.targets_U
    items_S[~is_target_S] = train.flat_items()
    none_U = np.full(len(valid), -1, dtype=np.int64)
    return Timelines(
        Histories(valid.user_ids, items_S, starts_U, ends_U - 1, none_U),
        Histories(valid.user_ids, items_S, starts_U, ends_U - 1, valid.targets_U),
        Histories(valid.user_ids, items_S, starts_U, ends_U, test.targets_U),
    )
