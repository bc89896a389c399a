"""The state of a training after an epoch: weights, the best epoch's weights, the optimizer, the curve. Safetensors and JSON.

Each epoch's state is a folder of its own, written beside, flushed and renamed; then the one before is removed. So whatever dies and
whenever, the newest folder is whole. The JSON holds the settings, what training reads, and the SHA-256 of the tensors.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sidlake.errors import ArtifactError, StaleReleaseError
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.sequences import Histories
from sidlake.whole_files import replacing

__all__ = ["EpochRow", "TrainingState", "fingerprint", "read_state", "write_state"]

_FORMAT = "sidlake-training-1"


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRow:
    """What an epoch (from 1) came to: mean training loss, validation Recall@10 and NDCG@10."""

    epoch: int
    loss: float
    recall: float
    ndcg: float


@dataclass(slots=True)
class TrainingState:
    """The curve so far, the best epoch by NDCG@10 (the first of equals; 0 before any), and a copy of its weights."""

    curve: list[EpochRow]
    best_epoch: int
    best: dict[str, Tensor]

    @classmethod
    def start(cls, model: PackedDecoder) -> TrainingState:
        """Return the state before the first epoch."""
        return cls([], 0, _copy(model))

    def add(self, row: EpochRow, model: PackedDecoder) -> None:
        """Append an epoch; its weights are copied where it is the best so far."""
        is_best = self.best_epoch == 0 or row.ndcg > self.curve[self.best_epoch - 1].ndcg
        self.curve.append(row)
        if is_best:
            self.best_epoch, self.best = row.epoch, _copy(model)


def write_state(
    folder: Path, state: TrainingState, model: PackedDecoder, optimizer: torch.optim.Optimizer, *, training: str
) -> None:
    """Keep `state` of the training that the digest `training` names as the newest in `folder`, and remove the older ones."""
    tensors = {f"model.{name}": value for name, value in _copy(model).items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value.detach().cpu().clone() for name, value in values.items()}
    final = folder / f"epoch-{len(state.curve):05d}"
    shutil.rmtree(final, ignore_errors=True)
    with replacing(final) as beside:
        beside.mkdir()
        save_file(tensors, beside / "state.safetensors")
        info = {
            "format": _FORMAT,
            "training": training,
            "curve": [asdict(row) for row in state.curve],
            "best_epoch": state.best_epoch,
            "sha256": _sha256(beside / "state.safetensors"),
        }
        (beside / "state.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    for older in folder.iterdir():
        if older != final and older.is_dir() and older.name.lstrip(".").startswith("epoch-"):
            shutil.rmtree(older, ignore_errors=True)


def read_state(folder: Path, model: PackedDecoder, optimizer: torch.optim.Optimizer, *, training: str) -> TrainingState:
    """Return the newest state in `folder`, with `model` and `optimizer` set to it; without one that before the first epoch.

    Raises `StaleReleaseError` where it belongs to other settings or data, `ArtifactError` where its files are damaged.
    """
    kept = sorted(folder.glob("epoch-*")) if folder.is_dir() else []
    if not kept:
        return TrainingState.start(model)
    path = kept[-1]
    try:
        info = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if info["format"] != _FORMAT or info["sha256"] != _sha256(path / "state.safetensors"):
            msg = f"training state {path} is not whole, or of another format than {_FORMAT}; delete the folder and train anew"
            raise ArtifactError(msg, path=str(path))
        if info["training"] != training:
            msg = f"training state {path} belongs to other settings or another release; delete the folder and train anew"
            raise StaleReleaseError(msg, path=str(path))
        return _restored(info, load_file(path / "state.safetensors"), model, optimizer)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        msg = f"training state {path} is damaged: {error}; delete the folder and train anew"
        raise ArtifactError(msg, path=str(path)) from error


def fingerprint(model: PackedDecoder, train: Histories) -> str:
    """Return what identifies a training: settings, what the model knows of the items, and the histories, as a SHA-256."""
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for facts in (model.codes_NL, model.fused_NF, model.known_N):
        digest.update(facts.cpu().numpy().tobytes())
    for part in (train.flat_items(), train.ends_U - train.starts_U):
        digest.update(part.tobytes())
    return digest.hexdigest()


def _restored(
    info: dict[str, object], tensors: dict[str, Tensor], model: PackedDecoder, optimizer: torch.optim.Optimizer
) -> TrainingState:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    model.load_state_dict(parts["model"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        number, _, moment = name.partition(".")
        moments.setdefault(int(number), {})[moment] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    curve, best_epoch = info["curve"], info["best_epoch"]
    assert isinstance(curve, list)
    assert isinstance(best_epoch, int)
    return TrainingState([EpochRow(**row) for row in curve], best_epoch, parts["best"])


def _copy(model: PackedDecoder) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
