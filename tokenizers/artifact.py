"""Codebooks as one safetensors file: the tensors, the config that fitted them, and a hash that names them.

The hash covers tensors and config alone, so the same codebooks have the same hash wherever and whenever they were saved; it is
stored and checked on reading. A file appears whole or not at all: it is written beside its place, synced, then renamed. No
pickle.
Kinds trained by gradient have bits that the device and the versions decide (`Tokenizer.made_with`): these are stored beside, not
hashed, so that two machines that made the same codebooks agree on their name. Of the other kinds the device changes nothing and is
not stored.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sidlake.errors import ArtifactError
from sidlake.tokenizers.registry import tokenizer_config
from sidlake.tokenizers.tokenizer import Tokenizer
from sidlake.whole_files import replacing

__all__ = ["codebook_hash", "load_codebook", "save_codebook"]

_FORMAT = "sidlake.codebook"
_VERSION = "1"
_KEY = "sidlake"


def save_codebook(model: Tokenizer, path: Path | str) -> str:
    """Write `model` to `path`, replacing what is there, and return its `codebook_hash`."""
    digest = codebook_hash(model)
    about = {"format": _FORMAT, "version": _VERSION, "kind": model.kind, "config": _fields(model), "sha256": digest}
    if model.made_with:
        about["made_with"] = dict(model.made_with)
    # One key, because safetensors writes several in an order that changes from call to call.
    with replacing(Path(path)) as beside:
        beside.write_bytes(save(model.tensors(), metadata={_KEY: json.dumps(about, sort_keys=True)}))
    return digest


def load_codebook(path: Path | str, *, dim: int | None = None) -> Tokenizer:
    """Return the model stored at `path`, equal to the one saved except for ``config.device``, which is ``cpu``.

    Raises `ArtifactError` where the file is missing, damaged, of another kind or version, or (with `dim`) of another dimension.
    """
    about, tensors = _read(Path(path))
    found = (about.get("format"), about.get("version"))
    if found != (_FORMAT, _VERSION):
        msg = f"{path} is not a codebook this version reads: it says {found}, expected {(_FORMAT, _VERSION)}"
        raise ArtifactError(msg, path=str(path), found=found)
    try:
        kind, config = tokenizer_config(str(about.get("kind")), about["config"])
        model = kind.from_tensors(config, tensors)
    except (KeyError, TypeError, ValueError) as error:
        msg = f"{path} is damaged: its tensors and its config do not belong together ({error}); restore it or fit again"
        raise ArtifactError(msg, path=str(path)) from error
    model.made_with = {str(name): str(value) for name, value in about.get("made_with", {}).items()}
    if codebook_hash(model) != about.get("sha256"):
        msg = f"{path} is damaged: it hashes to {codebook_hash(model)}, not to {about.get('sha256')}; restore it or fit again"
        raise ArtifactError(msg, path=str(path))
    if dim is not None and model.dim != dim:
        msg = f"{path} holds codebooks of {model.dim} dimensions, the vectors have {dim}: fitted with another encoder or fusion"
        raise ArtifactError(msg, path=str(path), dim=model.dim, expected=dim)
    return model


def codebook_hash(model: Tokenizer) -> str:
    """Return the SHA-256, in hex, of the tensors (names, types, shapes, little-endian bytes) and the config."""
    digest = sha256(json.dumps(_fields(model), sort_keys=True).encode())
    for name, tensor in model.tensors().items():
        digest.update(f"\n{name} {tensor.dtype.name} {tensor.shape}\n".encode())
        digest.update(tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def _fields(model: Tokenizer) -> dict[str, Any]:
    fields = asdict(model.config)
    del fields["device"]
    return fields


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Return what the file says about itself (nothing, for a safetensors file of another make) and its tensors."""
    try:
        with safe_open(str(path), framework="np") as file:
            about = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            return dict(about), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except FileNotFoundError as error:
        msg = f"there is no codebook at {path}: fit one first"
        raise ArtifactError(msg, path=str(path)) from error
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        msg = f"{path} is not a readable safetensors file ({error}): restore it or fit again"
        raise ArtifactError(msg, path=str(path)) from error
