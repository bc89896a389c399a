"""The items of a release with their codes, as every export needs them: read once, in one stated order, checked.

Shape suffixes: N items, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sidlake.errors import ContractError
from sidlake.generative.catalogue import ItemCatalogue

__all__ = ["CatalogueCodes"]


@dataclass(frozen=True, slots=True, eq=False)
class CatalogueCodes:
    """Items by their SIDs: `item_ids` (N), `codes_NL` int32 in lexicographic order, `widths` the number of codes per level."""

    item_ids: list[str]
    codes_NL: npt.NDArray[np.int32]
    widths: tuple[int, ...]

    @classmethod
    def from_tables(cls, semantic_ids: pa.Table, codebooks: pa.Table) -> CatalogueCodes:
        """Return the items of `semantic_ids` (item_id, codes); `codebooks` (level) says how many codes a level has.

        Raises `ContractError` for no items, SIDs of another length than the codebooks, or a code that they have not.
        """
        levels, counts = np.unique(codebooks.column("level").to_numpy(), return_counts=True)
        if levels.tolist() != list(range(len(levels))) or not len(levels):
            msg = f"the codebooks have the levels {levels.tolist()}, expected 0, 1, ...; read all tables from one release"
            raise ContractError(msg, levels=levels.tolist())
        catalogue = ItemCatalogue.from_table(semantic_ids, widths=tuple(counts.tolist()))
        codes_NL = catalogue.tokens_NL - np.array(catalogue.space.offsets)
        return cls(catalogue.item_ids.to_pylist(), codes_NL.astype(np.int32), catalogue.space.widths)
