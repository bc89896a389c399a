"""The codes as tokens of a language model: a list for `add_tokens`, and a tokenizer that turns SIDs into their numbers.

``tokenizer.json`` is Hugging Face's format, read by `tokenizers.Tokenizer.from_file` and, with ``tokenizer_config.json`` beside it,
by `transformers.AutoTokenizer.from_pretrained`: the special tokens first, then every code of level 0, level 1, ...: code c of level
l is number 3 + widths[0] + ... + widths[l-1] + c. It is for models that read SIDs alone; a language model keeps its own tokenizer
and adds the tokens of ``sid_tokens.json`` in their order.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from sidlake.generative.exports.catalogue_codes import CatalogueCodes
from sidlake.tokenizers.semantic_id import code_tokens

__all__ = ["write_hf_tokens"]

_SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def write_hf_tokens(codes: CatalogueCodes, folder: Path) -> list[Path]:
    """Write `sid_tokens.json` (a list), `tokenizer.json` and `tokenizer_config.json` to `folder`."""
    tokens = [token for level in code_tokens(codes.widths) for token in level]
    vocabulary = {token: number for number, token in enumerate([*_SPECIAL.values(), *tokens])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=_SPECIAL["unk_token"]))
    tokenizer.add_special_tokens(list(_SPECIAL.values()))
    tokenizer.pre_tokenizer = Split(Regex("<[a-z]_[0-9]+>"), "isolated")
    config = _SPECIAL | {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    files = [folder / name for name in ("sid_tokens.json", "tokenizer.json", "tokenizer_config.json")]
    files[0].write_text(json.dumps(tokens), encoding="utf-8")
    tokenizer.save(str(files[1]))
    files[2].write_text(json.dumps(config, indent=2), encoding="utf-8")
    return files
