"""The encoders section of a recipe: which encoders run, and how their vectors become the one that is quantized."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidlake.encoders.behaviour import BehaviourConfig
from sidlake.encoders.fusion.config import FuseConfig, FusionConfig, ModalityWeight
from sidlake.encoders.image.encoder import ImageEncoderConfig
from sidlake.encoders.precomputed import PrecomputedConfig
from sidlake.encoders.text.encoder import TextEncoderConfig
from sidlake.errors import RecipeError

__all__ = ["MODALITIES", "EncodersConfig", "Modality"]

MODALITIES = ("text", "image", "behaviour")
"""The encoders of this version, by the field that configures each; a table of `precomputed` may not be called like one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """Share of a modality in the fused vector: it is reduced to `dim` principal components and scaled to `weight`.

    Of the fusion kind ``plain`` neither is read: vectors are taken as they are.

    Attributes:
        weight: what the modality's vectors are multiplied by before they are joined.
        dim: principal components of the modality that are kept.
    """

    weight: float = 1.0
    dim: int = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodersConfig:
    """The encoders that run and how their vectors are fused.

    Attributes:
        text: the model that reads titles and texts.
        image: what reads pictures; left out for none.
        behaviour: vectors from what users do in turn; left out for catalogues without interactions.
        precomputed: tables of vectors made elsewhere, each a modality by its name.
        fusion: the modalities that are fused, with the share of each.
        whiten: give every kept direction of a modality unit variance before the scaling.
        fuse: the way in which modalities become one vector.
    """

    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    image: ImageEncoderConfig | None = None
    behaviour: BehaviourConfig | None = None
    precomputed: dict[str, PrecomputedConfig] = field(default_factory=dict)
    fusion: dict[str, Modality] = field(default_factory=lambda: {"text": Modality()})
    whiten: bool = False
    fuse: FuseConfig = field(default_factory=FuseConfig)

    def __post_init__(self) -> None:
        taken = sorted({*MODALITIES, "fused"} & set(self.precomputed))
        if taken:
            msg = f"encoders.precomputed: {taken} are names of other modalities"
            raise RecipeError(msg)
        available = {modality for modality in MODALITIES if getattr(self, modality) is not None} | set(self.precomputed)
        if not self.fusion or not set(self.fusion) <= available:
            msg = f"encoders.fusion: modalities {sorted(self.fusion)} must be a non-empty subset of {sorted(available)}"
            raise RecipeError(msg)
        try:
            self.fusion_config()
        except ValueError as error:
            msg = f"encoders.fusion: {error}"
            raise RecipeError(msg) from error

    def fusion_config(self) -> FusionConfig:
        """Return what the fusion is fitted with; `ValueError` where the kind and the modalities do not fit."""
        weights = tuple(ModalityWeight(name, share.weight, share.dim) for name, share in self.fusion.items())
        return FusionConfig(weights=weights, whiten=self.whiten, fuse=self.fuse)
