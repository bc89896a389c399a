"""The tokenizers by name: what recipes and artifacts call them.

A kind's module is imported when it is asked for, so that fitting k-means does not wait for torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from sidlake.errors import ArtifactError
from sidlake.tokenizers.tokenizer import Tokenizer, frozen_values

__all__ = ["KINDS", "tokenizer_class", "tokenizer_config"]

KINDS = {
    "append_digit": ("append_digit", "AppendDigit"),
    "balanced_kmeans": ("balanced_kmeans", "BalancedKMeans"),
    "beam_kmeans": ("beam_kmeans", "BeamKMeans"),
    "category_index": ("category_index", "CategoryIndex"),
    "collaborative_index": ("collaborative_index", "CollaborativeIndex"),
    "contrastive_rq_vae": ("contrastive_rq_vae", "ContrastiveRQVAE"),
    "hybrid_index": ("hybrid_index", "HybridIndex"),
    "letter": ("letter", "Letter"),
    "optimized_product": ("product", "OptimizedProduct"),
    "product": ("product", "Product"),
    "qinco": ("qinco", "QINCo"),
    "random_index": ("random_index", "RandomIndex"),
    "relabelled": ("relabelled", "Relabelled"),
    "residual_kmeans": ("residual_kmeans", "ResidualKMeans"),
    "residual_vq": ("residual_vq", "ResidualVQ"),
    "rq_vae": ("rq_vae", "RQVAE"),
    "sequential_index": ("sequential_index", "SequentialIndex"),
}
"""Module and class of each kind."""


def tokenizer_class(kind: str) -> type[Tokenizer]:
    """Return the class of `kind`; `ArtifactError` for a name that this version does not know.

    >>> tokenizer_class("residual_kmeans").__name__
    'ResidualKMeans'
    """
    if kind not in KINDS:
        msg = f"there is no tokenizer {kind!r}: this version has {', '.join(sorted(KINDS))}"
        raise ArtifactError(msg, kind=kind)
    module, name = KINDS[kind]
    found: type[Tokenizer] = getattr(import_module(f"sidlake.tokenizers.{module}"), name)
    return found


def tokenizer_config(kind: str, values: Mapping[str, object]) -> tuple[type[Tokenizer], Any]:
    """Return the class of `kind` and its config made of JSON values; `TypeError` or `ValueError` where they do not fit."""
    found = tokenizer_class(kind)
    return found, found.config_type(**{name: frozen_values(value) for name, value in values.items()})
