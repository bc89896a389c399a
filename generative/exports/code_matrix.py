"""The codes as one tensor with a column an item, as GRID and NVIDIA's recsys-examples read it.

Both read a tensor [levels, items] indexed by a dense item number (github.com/snap-research/GRID, its `semantic_id_path`;
github.com/NVIDIA/recsys-examples, examples/sid_gr, `item_id_to_sid_mapping_tensor_path`) through `torch.load`. A `.pt` file is a
pickle, which runs code when it is opened, so a safetensors file is written; who needs the `.pt` makes it in one line:

    torch.save(safetensors.torch.load_file("item_sids.safetensors")["codes"], "item-sid-mapping.pt")
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from sidlake.generative.exports.catalogue_codes import CatalogueCodes

__all__ = ["write_grid"]


def write_grid(codes: CatalogueCodes, folder: Path) -> list[Path]:
    """Write `item_sids.safetensors` (``codes``: int64 [levels, items]) and `items.parquet` (item, item_id) to `folder`.

    An item's number is its place in the order of SIDs; `items.parquet` maps numbers to item_ids, and histories must use them.
    """
    about = {"layout": f"levels,items; widths {','.join(map(str, codes.widths))}"}  # one entry: two come out in any order
    tensors = {"codes": np.ascontiguousarray(codes.codes_NL.T.astype(np.int64))}
    save_file(tensors, folder / "item_sids.safetensors", metadata=about)
    numbers = pa.array(np.arange(len(codes.item_ids)), pa.int64())
    pq.write_table(pa.table({"item": numbers, "item_id": codes.item_ids}), folder / "items.parquet")
    return [folder / "item_sids.safetensors", folder / "items.parquet"]
