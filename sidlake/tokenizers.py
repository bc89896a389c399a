"""The tokenizers in one import: ``from sidlake.tokenizers import ResidualKMeans, ResidualKMeansConfig, unique, load``.

Every tokenizer of this version and its config by the name of its class; `unique`, which encodes vectors and makes their codes
unique; `save` and `load`. Names are looked up when they are asked for, so that k-means does not wait for torch.

This module is the package: it says by ``__path__`` where the rooms and modules below it lie. An ``__init__.py`` in their folder
would hide Hugging Face's `tokenizers` from whoever starts Python at the repository's root (docs/decisions/0001-packaging.md).
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from sidlake.tokenizers.numeric.nearest import Int32Array
    from sidlake.tokenizers.tokenizer import ItemFacts, Tokenizer

__all__ = ["load", "save", "unique"]

_HERE = Path(__file__).resolve().parent
__path__ = [
    str(place / "tokenizers") for place in (_HERE, _HERE.parent) if (place / "tokenizers").is_dir()
]  # installed, or a checkout


def save(tokenizer: Tokenizer, path: Path | str) -> str:
    """Write a fitted tokenizer to one safetensors file and return its hash; see `artifact.save_codebook`."""
    from sidlake.tokenizers.artifact import save_codebook

    return save_codebook(tokenizer, path)


def load(path: Path | str) -> Tokenizer:
    """Return the tokenizer stored at `path`; `ArtifactError` where there is none that can be read."""
    from sidlake.tokenizers.artifact import load_codebook

    return load_codebook(path)


def unique(
    tokenizer: Tokenizer,
    x_ND: npt.ArrayLike,
    item_ids: Sequence[str],
    *,
    strategy: str = "reassign",
    occupied_codes_ML: Int32Array | None = None,
    facts: ItemFacts | None = None,
) -> Int32Array:
    """Return codes_NL, a SID of its own for each item (``strategy="none"``: the raw codes), whatever the order of the rows.

    `occupied_codes_ML` are SIDs that are taken. Raises `CapacityError` for more items than SIDs, `ValueError` for ids that are not
    one per row or not distinct, and what `Tokenizer.encode` and `make_unique` raise.
    """
    from sidlake.tokenizers.fit_input import as_rows
    from sidlake.tokenizers.item_hash import item_hashes
    from sidlake.tokenizers.uniqueness.strategies import make_unique

    x = as_rows(x_ND)
    if len(item_ids) != len(x) or len(set(item_ids)) != len(item_ids):
        raise ValueError(f"item_ids must be one per vector and distinct, got {len(set(item_ids))} for {len(x)} vectors")
    order = np.argsort(np.asarray(item_ids))  # rows sorted by id, as `make_unique` wants them
    codes_NL, norms_N = tokenizer.encode_with_norms(x, facts=facts)
    result = make_unique(
        strategy,
        tokenizer,
        codes_NL[order],
        norms_N[order],
        item_hashes([item_ids[row] for row in order.tolist()]),
        latents_of=lambda rows: tokenizer.latents(x[order[rows]]),
        occupied_codes_ML=occupied_codes_ML,
    )
    made_NL = np.empty_like(codes_NL)
    made_NL[order] = result.codes_NL
    return made_NL


def __getattr__(name: str) -> Any:  # noqa: ANN401  a class
    classes = _classes()
    module = classes.get(name) or classes.get(name.removesuffix("Config"))
    if module is not None:
        found = import_module(f"sidlake.tokenizers.{module}")
        if name in classes:
            return getattr(found, name)
        return getattr(found, name.removesuffix("Config")).config_type
    raise AttributeError(f"sidlake.tokenizers has no {name!r}: it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_classes(), *(f"{name}Config" for name in _classes())])


def _classes() -> dict[str, str]:
    """Return the module of each class; looked up here, not above, because `registry` lies in the package that this module is."""
    from sidlake.tokenizers.registry import KINDS

    return {name: module for module, name in KINDS.values()}
