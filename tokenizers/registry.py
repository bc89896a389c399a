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
    "append_digit": ("uniqueness.append_digit", "AppendDigit"),
    "balanced_kmeans": ("quantizers.balanced_kmeans", "BalancedKMeans"),
    "beam_kmeans": ("quantizers.beam_kmeans", "BeamKMeans"),
    "category_index": ("indexes.category", "CategoryIndex"),
    "collaborative_index": ("indexes.collaborative", "CollaborativeIndex"),
    "contrastive_rq_vae": ("quantizers.contrastive_rq_vae", "ContrastiveRQVAE"),
    "hybrid_index": ("indexes.hybrid", "HybridIndex"),
    "letter": ("quantizers.letter", "Letter"),
    "optimized_product": ("quantizers.product", "OptimizedProduct"),
    "product": ("quantizers.product", "Product"),
    "qinco": ("quantizers.qinco", "QINCo"),
    "random_index": ("indexes.by_chance", "RandomIndex"),
    "relabelled": ("generations.relabelled", "Relabelled"),
    "residual_kmeans": ("quantizers.residual_kmeans", "ResidualKMeans"),
    "residual_vq": ("quantizers.residual_vq", "ResidualVQ"),
    "rq_vae": ("quantizers.rq_vae", "RQVAE"),
    "sequential_index": ("indexes.sequential", "SequentialIndex"),
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
