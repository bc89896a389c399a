"""Checkpoints of a trained model: a folder with `model.safetensors` and `checkpoint.json`, bound to a generation of codebooks.

The JSON names the release, the generation, the codebooks' hash, the widths, the configuration, and the SHA-256 of the weights. A
decoder's weights hold what it knows of the items too (codes, fused vectors), in the order of that release's codes. The folder is
written under another name, flushed and renamed, so it exists only when complete; it is never overwritten. Loading refuses
another generation: in FORGE's own release such a mix-up gave hit rates near 0 and went unnoticed (github.com/selous123/al_sid,
issue 27). Not here: the state by which a training goes on (`training.resume`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model

from sidlake.errors import ArtifactError, NotFoundError, RecipeError, StaleReleaseError, StorageError
from sidlake.generative.catalogue import TokenSpace
from sidlake.generative.config import DecoderConfig, GenerativeConfig
from sidlake.generative.models.item_facts import ItemFacts
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.models.tiger import GenerativeModel
from sidlake.whole_files import replacing

__all__ = ["CheckpointInfo", "load_checkpoint", "read_checkpoint_info", "save_checkpoint"]

_FORMAT = "sidlake-generative-2"
_WEIGHTS = "model.safetensors"
_INFO = "checkpoint.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """What `checkpoint.json` holds: what the model was trained on, and what its weights must hash to."""

    format: str
    release_id: str
    generation: str
    codebook_hash: str
    widths: tuple[int, ...]
    config: DecoderConfig | GenerativeConfig
    weights_sha256: str


def save_checkpoint(
    directory: Path,
    model: GenerativeModel | PackedDecoder,
    *,
    release_id: str,
    generation: str,
    codebook_hash: str,
    widths: tuple[int, ...],
    config: DecoderConfig | GenerativeConfig,
) -> CheckpointInfo:
    """Return what was written into the new folder `directory`, all of it or, whatever dies, nothing.

    Raises `StorageError` if the folder exists or cannot be written, `ValueError` if `widths` or `config` are not the model's.
    """
    own = model.space.widths if isinstance(model, GenerativeModel) else model.widths
    if (own, model.config) != (tuple(widths), config):
        msg = f"the model has widths {own} and {model.config}, not {widths} and {config}"
        raise ValueError(msg)
    try:
        with replacing(directory) as partial:
            partial.mkdir()
            save_model(model, str(partial / _WEIGHTS))
            info = CheckpointInfo(
                format=_FORMAT,
                release_id=release_id,
                generation=generation,
                codebook_hash=codebook_hash,
                widths=tuple(widths),
                config=config,
                weights_sha256=_sha256(partial / _WEIGHTS),
            )
            (partial / _INFO).write_text(json.dumps(asdict(info), indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        remedy = "choose a writable folder, free some space, or delete the folder if it exists"
        msg = f"cannot write checkpoint {directory}: {error}; {remedy}"
        raise StorageError(msg, path=str(directory)) from error
    return info


def load_checkpoint(
    directory: Path, *, generation: str, codebook_hash: str, device: torch.device | str = "cpu"
) -> GenerativeModel | PackedDecoder:
    """Return the model of `directory`, in eval mode, for a release of `generation` with `codebook_hash`.

    A later release of the same generation is fine. Raises `StaleReleaseError` for another generation or other codebooks,
    `ArtifactError` for files that are damaged or of another format, `NotFoundError` where there is no such folder.
    """
    info = read_checkpoint_info(directory)
    if (info.generation, info.codebook_hash) != (generation, codebook_hash):
        msg = (
            f"checkpoint {directory} was trained on release {info.release_id}, generation {info.generation} (codebooks"
            f" {info.codebook_hash[:12]}), but generation {generation} (codebooks {codebook_hash[:12]}) was asked for;"
            f" train on the current release, or read release {info.release_id}"
        )
        raise StaleReleaseError(msg, trained=info.generation, asked=generation)
    weights = directory / _WEIGHTS
    try:
        digest = _sha256(weights)
    except OSError as error:
        msg = f"cannot read {weights}: {error}; delete the folder and train again"
        raise ArtifactError(msg, path=str(weights)) from error
    if digest != info.weights_sha256:
        msg = f"{weights} hashes to {digest[:12]}, {_INFO} says {info.weights_sha256[:12]}; delete the folder and train again"
        raise ArtifactError(msg, path=str(weights))
    try:
        model = _untrained(info, weights)
        load_model(model, weights)
    except (SafetensorError, RuntimeError, KeyError) as error:
        msg = f"{weights} does not hold this model: {error}; delete the folder and train again"
        raise ArtifactError(msg, path=str(weights)) from error
    return model.to(device).eval()


def _untrained(info: CheckpointInfo, weights: Path) -> GenerativeModel | PackedDecoder:
    with torch.random.fork_rng(devices=[]):
        if isinstance(info.config, GenerativeConfig):
            return GenerativeModel(TokenSpace(widths=info.widths), info.config)
        kept = load_file(weights)
        return PackedDecoder(ItemFacts(info.widths, kept["codes_NL"], kept["fused_NF"], kept["known_N"]), info.config)


def read_checkpoint_info(directory: Path) -> CheckpointInfo:
    """Return what the checkpoint in `directory` says of itself; errors as in `load_checkpoint`."""
    path = directory / _INFO
    if not directory.is_dir():
        msg = f"no checkpoint at {directory}; train first, or name another folder"
        raise NotFoundError(msg, path=str(directory))
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        names = {field.name for field in fields(CheckpointInfo)}
        if not isinstance(values, dict) or values.keys() != names or values["format"] != _FORMAT:
            msg = f"{path} is not of format {_FORMAT}; load it with the version of sidlake that wrote it, or train again"
            raise ArtifactError(msg, path=str(path))
        values["config"] = _config_of(values["config"])
        values["widths"] = tuple(values["widths"])
        return CheckpointInfo(**values)
    except (OSError, ValueError, TypeError, RecipeError) as error:
        msg = f"{path} is damaged or of another version: {error}; delete the folder and train again"
        raise ArtifactError(msg, path=str(path)) from error


def _config_of(values: dict[str, object]) -> DecoderConfig | GenerativeConfig:
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    kind = GenerativeConfig if settings.get("kind") == "tiger" else DecoderConfig
    return kind(**settings)  # type: ignore[arg-type]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
