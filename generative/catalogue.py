"""The items a generative model can name, and the tokens that spell them.

An item's index is the rank of its codes in lexicographic order, which is also the number of its leaf in the prefix trie: what the
beam search returns is an item index, with no table in between. Token 0 pads, token 1 starts the decoder, and code c of level l is
token 2 + widths[0] + ... + widths[l-1] + c. Not done here: reading codes from storage, or checking that they are unique (a law of
the release).

Shape suffixes: N items, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.errors import ContractError

__all__ = ["BOS", "PAD", "ItemCatalogue", "TokenSpace"]

PAD = 0
BOS = 1
_NUM_SPECIAL = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSpace:
    """The numbering of the codes of all levels as tokens, after PAD and BOS; `widths` is the number of codes per level.

    >>> space = TokenSpace(widths=(4, 8))
    >>> space.size, space.offsets
    (14, (2, 6))
    >>> space.tokens(np.array([[3, 0]])).tolist()
    [[5, 6]]
    """

    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            msg = f"widths must name at least one level of at least one code, got {self.widths}"
            raise ValueError(msg)

    @property
    def num_levels(self) -> int:
        """Return the number of codes of a SID."""
        return len(self.widths)

    @property
    def size(self) -> int:
        """Return the number of tokens, PAD and BOS included."""
        return _NUM_SPECIAL + sum(self.widths)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Return the token of code 0 of each level."""
        return tuple(accumulate(self.widths[:-1], initial=_NUM_SPECIAL))

    def tokens(self, codes_NL: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return the tokens of `codes_NL`, int64 of the same shape; `ContractError` where a code exceeds its level's width."""
        if codes_NL.ndim != 2 or codes_NL.shape[1] != self.num_levels:
            msg = f"codes have shape {codes_NL.shape}, expected (items, {self.num_levels})"
            raise ContractError(msg, shape=codes_NL.shape)
        outside_NL = (codes_NL < 0) | (codes_NL >= np.array(self.widths))
        if outside_NL.any():
            row, level = np.argwhere(outside_NL)[0]
            limit = self.widths[level] - 1
            msg = f"code {codes_NL[row, level]} at level {level} of row {row}, limit {limit}; pass the widths of this generation"
            raise ContractError(msg, row=int(row), level=int(level))
        tokens_NL: npt.NDArray[np.int64] = codes_NL.astype(np.int64) + np.array(self.offsets, dtype=np.int64)
        return tokens_NL


@dataclass(frozen=True, slots=True, eq=False)
class ItemCatalogue:
    """Items ordered by their codes: `item_ids` (N strings), `tokens_NL` (int64). Memory per item: its id and 8 bytes per level."""

    space: TokenSpace
    item_ids: pa.StringArray
    tokens_NL: npt.NDArray[np.int64]

    @classmethod
    def from_table(cls, semantic_ids: pa.Table, *, widths: tuple[int, ...]) -> ItemCatalogue:
        """Return the catalogue of a `semantic_ids` table; the order of its rows does not matter.

        Raises `ContractError` for an empty table, a SID of another length, or a code outside its level.
        """
        space = TokenSpace(widths=widths)
        num_items = semantic_ids.num_rows
        lengths = pc.list_value_length(semantic_ids["codes"])
        if num_items == 0 or not pc.all(pc.equal(lengths, space.num_levels)).as_py():
            found = pc.unique(lengths).to_pylist()
            msg = (
                f"semantic_ids has {num_items} rows with {found} codes each; expected at least one row of {space.num_levels} codes"
            )
            raise ContractError(msg, rows=num_items)
        codes_NL = pc.list_flatten(semantic_ids["codes"]).to_numpy().reshape(num_items, space.num_levels)
        order_N = np.lexsort(codes_NL.T[::-1])
        item_ids = semantic_ids["item_id"].cast(pa.string()).take(pa.array(order_N)).combine_chunks()
        return cls(space, item_ids, space.tokens(codes_NL[order_N]))

    @property
    def num_items(self) -> int:
        """Return the number of items."""
        return len(self.tokens_NL)

    def indices(self, item_ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Return the index of each item id, int64; `ContractError` names an id that has no SID."""
        found = pc.index_in(item_ids.cast(pa.string()), value_set=self.item_ids)
        if found.null_count:
            unknown = item_ids.filter(pc.is_null(found))
            example = unknown[0].as_py()
            msg = f"{len(unknown)} references to items without a semantic ID, such as {example!r}; read all tables from one release"
            raise ContractError(msg, unknown=len(unknown))
        return np.asarray(found.to_numpy(), dtype=np.int64)

    def history_tokens(self, items_BH: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return tokens (B, H*L) int64 of item indices (B, H), of which -1 spells PAD at every level."""
        padded_NL = np.vstack([self.tokens_NL, np.full((1, self.space.num_levels), PAD)])
        return padded_NL[items_BH].reshape(len(items_BH), items_BH.shape[1] * self.space.num_levels)
