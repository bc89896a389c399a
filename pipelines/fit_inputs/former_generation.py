"""What a new generation takes over from the one before: names of its codes, and, if the recipe asks, where its fit starts.

Both go by the SIDs that the run's base release published, on the items that it shares with the catalogue of today. They are held
against the new raw codes, since new SIDs are decided only in the next step: on the gift shop's two years that names the codes as
well as counting the new SIDs themselves does, and better than former raw codes do.

Memory: 12 bytes per item and level.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.pipelines.run import RunContext
from sidlake.tokenizers.generations.alignment import align_codes
from sidlake.tokenizers.generations.relabelled import Relabelled
from sidlake.tokenizers.tokenizer import ItemFacts, Tokenizer
from sidlake.warehouse.embeddings import as_codes

__all__ = ["aligned_model", "former_codes", "starting_facts"]

Codes = npt.NDArray[np.int32]


def former_codes(ctx: RunContext, items: pa.Table) -> Codes | None:
    """Return the codes that the base release published for each of `items`, −1 where it has none; None without a base release."""
    base = ctx.base
    if base is None or "semantic_ids" not in base.tables:
        return None
    rows = ctx.warehouse.read("semantic_ids", version=base.tables["semantic_ids"], columns=["item_id", "generation", "codes"])
    rows = rows.filter(pc.equal(rows.column("generation"), base.generation))
    if not len(rows):
        return None
    where_N = pc.index_in(items.column("item_id"), value_set=rows.column("item_id").combine_chunks()).fill_null(-1).to_numpy()
    found_NL: Codes = np.where(where_N[:, None] >= 0, as_codes(rows.column("codes"))[where_N], np.int32(-1))
    return found_NL


def starting_facts(facts: ItemFacts, former_NL: Codes | None, num_levels: int) -> ItemFacts:
    """Return `facts` with the former codes of the first `num_levels` levels, −1 in levels that the former generation lacked."""
    if former_NL is None:
        return facts
    padded_NL = np.full((len(former_NL), num_levels), -1, dtype=np.int32)
    shared = min(num_levels, former_NL.shape[1])
    padded_NL[:, :shared] = former_NL[:, :shared]
    return replace(facts, former_codes_NL=padded_NL)


def aligned_model(
    model: Tokenizer, x_ND: npt.NDArray[np.float32], facts: ItemFacts, former_NL: Codes | None
) -> tuple[Tokenizer, dict[str, Any]]:
    """Return `model` with its codes named so that as many items as possible keep theirs, and the churn with and without.

    Without items of the former generation, and where no other name helps, it is `model` itself. Deterministic; the order of rows
    does not matter.
    """
    if former_NL is None or not (former_NL[:, 0] >= 0).any():
        return model, {}
    both_N = former_NL[:, 0] >= 0
    found = align_codes(former_NL[both_N], model.encode(x_ND, facts=facts)[both_N], model.widths)
    churn = {name: [round(share, 4) for share in shares] for name, shares in found.churn().items()}
    named = model if found.changes_nothing else Relabelled.around(model, found.names)
    return named, {"items_of_both": found.num_items, **churn}
