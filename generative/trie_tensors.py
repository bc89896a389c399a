"""The prefix trie as tensors for decoding: compressed sparse rows, with a dense table where a level is full.

The children of a node are a range of the next level, as in the table ``sid_trie``; since the ranges tile that level, one pointer
per node says both ends. A level in which at least a quarter of all (node, code) cells lead somewhere also has the whole table: a
step there needs no gathering at all. Sparse rows with a dense top are STATIC's layout (arXiv 2602.22647); which levels are dense is
counted here instead of set, because the gain turns into a loss where a table is mostly empty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sidlake.errors import ContractError
from sidlake.generative.catalogue import ItemCatalogue
from sidlake.tokenizers.trie import Trie

__all__ = ["TrieTensors"]

_DENSE_SHARE = 0.25
"""Below it, gathering children is faster than masking all codes (`benchmarks/decode.py`, 2 cores)."""
_DENSE_CELLS = 2**24
"""Cells of a dense table at most: 64 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class TrieTensors:
    """The nodes of each level, ordered by prefix; the level above level 0 is the root, node 0.

    Attributes:
        codes: per level int64, the code on the edge into each node.
        pointers: per level int64, one more than the level above has nodes: node n has the children ``pointers[n]:pointers[n + 1]``.
        dense: per level int32 (nodes above, codes), the child by code or -1; None where the level is sparse.

    Memory: 16 bytes per node, and 4 per cell of a dense level.
    """

    codes: tuple[Tensor, ...]
    pointers: tuple[Tensor, ...]
    dense: tuple[Tensor | None, ...]

    @classmethod
    def from_trie(cls, trie: Trie, catalogue: ItemCatalogue) -> TrieTensors:
        """Return `trie` as tensors; `ContractError` unless its leaves are exactly the items of `catalogue`."""
        if list(trie.item_ids) != catalogue.item_ids.to_pylist():
            msg = (
                f"the trie has {len(trie.item_ids)} leaves that are not the {catalogue.num_items} items of semantic_ids in the"
                " order of their codes; read both from one release"
            )
            raise ContractError(msg, leaves=len(trie.item_ids), items=catalogue.num_items)
        return cls.from_levels(trie, catalogue.space.widths)

    @classmethod
    def from_levels(cls, trie: Trie, widths: tuple[int, ...]) -> TrieTensors:
        """Return `trie` as tensors, `widths` being the number of codes per level."""
        root = np.array([0, len(trie.codes[0])])
        inner = zip(trie.child_start[:-1], trie.child_end[:-1], strict=True)
        pointers = [root, *(np.append(starts, ends[-1]) for starts, ends in inner)]
        parts = list(zip(trie.codes, pointers, widths, strict=True))
        return cls(
            tuple(_int64(codes) for codes, _, _ in parts),
            tuple(_int64(pointer) for _, pointer, _ in parts),
            tuple(_dense(*part) for part in parts),
        )

    @property
    def num_levels(self) -> int:
        """Return the number of codes of a SID."""
        return len(self.codes)

    def children(self, node_BW: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Return the first node of `level` below each node of the level above, and one past the last."""
        return self.pointers[level][node_BW], self.pointers[level][node_BW + 1]

    def to(self, device: torch.device) -> TrieTensors:
        """Return the trie on `device`."""
        dense = tuple(None if table is None else table.to(device) for table in self.dense)
        codes, pointers = (tuple(tensor.to(device) for tensor in part) for part in (self.codes, self.pointers))
        return TrieTensors(codes, pointers, dense)


def _int64(values: npt.NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


def _dense(codes: npt.NDArray[np.integer], pointers: npt.NDArray[np.integer], width: int) -> Tensor | None:
    """Return the child of every node above by code, int32, -1 for none; None where it would be mostly empty or too large."""
    num_above = len(pointers) - 1
    cells = num_above * width
    if cells > _DENSE_CELLS or len(codes) < _DENSE_SHARE * cells:
        return None
    table = torch.full((num_above, width), -1, dtype=torch.int32)
    parents = np.repeat(np.arange(num_above), np.diff(pointers))
    table[torch.from_numpy(parents), _int64(codes)] = torch.arange(len(codes), dtype=torch.int32)
    return table
