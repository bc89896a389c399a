"""The codes as `*.index.json`, which LETTER, LC-Rec and MiniOneRec read: item -> ["<a_12>", "<b_7>", "<c_33>"].

Their loaders take the keys for the items of their histories. LETTER and LC-Rec number items from 0 as strings; here a key is the
release's item_id, and with `numbered` the place in the order of SIDs, for loaders that call `int` on it.
"""

from __future__ import annotations

import json
from pathlib import Path

from sidlake.generative.exports.catalogue_codes import CatalogueCodes
from sidlake.tokenizers.semantic_id import code_tokens

__all__ = ["write_index_json"]


def write_index_json(codes: CatalogueCodes, folder: Path, *, numbered: bool = False) -> list[Path]:
    """Write `sidlake.index.json` to `folder`, with `numbered` also `sidlake.item2id` (item_id, tab, number; a line an item)."""
    tokens = code_tokens(codes.widths)
    keys = [str(number) for number in range(len(codes.item_ids))] if numbered else codes.item_ids
    spelled = {
        key: [tokens[level][code] for level, code in enumerate(row)] for key, row in zip(keys, codes.codes_NL.tolist(), strict=True)
    }
    files = [folder / "sidlake.index.json"]
    files[0].write_text(json.dumps(spelled, ensure_ascii=False), encoding="utf-8")
    if numbered:
        files.append(folder / "sidlake.item2id")
        lines = (f"{item_id}\t{key}\n" for item_id, key in zip(codes.item_ids, keys, strict=True))
        files[1].write_text("".join(lines), encoding="utf-8", newline="")
    return files
