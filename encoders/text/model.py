"""A loaded sentence-transformers text model that maps token ids to vectors, one fixed-shape batch at a time.

On the CPU each forward pass uses one torch thread and several passes run side by side in Python threads: a product split over
threads adds in another order (measured: 1e-7 between one and two threads in some shapes), passes side by side do not, and they
are as fast. Only the transformer runs in a reduced precision; pooling, dense layers and normalisation stay in float32.

Models of BERT's architecture (MiniLM, BGE, E5, GTE, ...) run without padding on the CPU, which is 1.8 times as fast for a shop's
titles; others and GPUs take padded batches.

Deliberately not done: chat templates, models whose first module is not a transformer. `TextModel.load` compares itself with the
model's own ``encode`` and refuses a model that it would feed wrongly.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sidlake.encoders.text import packed_attention
from sidlake.encoders.text.fixed_batches import FixedBatch, fixed_batches
from sidlake.encoders.text.packed_batches import PackedBatch, packed_batches
from sidlake.errors import EncoderError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["CHARS_PER_TOKEN", "Batch", "Kernel", "KernelChoice", "Precision", "TextModel"]

Batch = FixedBatch | PackedBatch
Precision = Literal["float32", "bfloat16", "float16"]
Kernel = Literal["packed", "padded", "cuda"]
KernelChoice = Literal["auto", "packed", "padded"]

# Texts are cut to this many characters per token of max_length before the tokenizer sees them, so that a 1 MB text costs no more
# than a long one. A real token has 4-5 characters; only a text that is mostly blanks loses tokens by the cut.
CHARS_PER_TOKEN = 100

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SELF_CHECK_TEXTS = ["blue ceramic mug with a handle", "set of six"]
_SELF_CHECK_COSINE = 0.999

# torch's thread count is one per process: two calls at once would change it under each other's feet.
_one_call_at_a_time = threading.Lock()


class TextModel:
    """Token ids to float32 vectors. `load` it; the constructor only stores what was loaded."""

    def __init__(self, model: SentenceTransformer, *, device: str, max_length: int, prompt: str, packs: bool) -> None:
        self.device = device
        self.max_length = max_length
        self._model = model
        self._tokenizer: Any = model.tokenizer
        self._prompt = prompt
        self._packs = packs
        self.dim = 0

    @classmethod
    def load(
        cls, folder: Path, *, device: str, max_length: int | None, precision: Precision, kernel: KernelChoice = "auto"
    ) -> TextModel:
        """Return the model of a checked `folder` on `device`, in `precision`, after comparing it with its own ``encode``.

        Raises:
            EncoderError: damaged files, `max_length` beyond the model's, a model that needs another input than plain tokens, or
                one that cannot run without padding where `kernel` is ``packed``.
        """
        model = _load_sentence_transformer(folder, device)
        limit = _model_max_length(model)
        if max_length is not None and max_length > limit:
            raise EncoderError(f"max_length {max_length} is beyond the {limit} tokens of {folder}. Give {limit} or less, or none.")
        prompt = model.prompts.get(model.default_prompt_name or "") or ""
        model.max_seq_length = max_length or limit
        packs = device == "cpu" and kernel != "padded" and _can_pack(model)
        if kernel == "packed" and not packs:
            raise EncoderError(f"{folder} cannot run without padding on {device}. Choose kernel 'padded' or 'auto'.")
        loaded = cls(model, device=device, max_length=max_length or limit, prompt=prompt, packs=packs)
        loaded._check_against_own_encode(folder)
        if precision != "float32":
            model[0].to(_DTYPES[precision])
        return loaded

    @property
    def kernel(self) -> Kernel:
        """How the model runs here, which decides the last bits of a vector."""
        return "cuda" if self.device == "cuda" else "packed" if self._packs else "padded"

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids per text, special tokens included, at most `max_length` each; every list has at least one id."""
        limit = self.max_length * CHARS_PER_TOKEN
        cut = [(self._prompt + text)[:limit] for text in texts]
        if not cut:
            return []
        ids = self._tokenizer(cut, truncation=True, max_length=self.max_length, padding=False, return_attention_mask=False)[
            "input_ids"
        ]
        return [list(row) or [self._pad_id] for row in ids]

    def batches(self, tokens: Sequence[Sequence[int]], *, tokens_per_batch: int) -> list[Batch]:
        """Return the passes that cover every text once; their shapes depend on `tokens_per_batch` and lengths alone."""
        lengths = [len(row) for row in tokens]
        if self._packs:
            return list(packed_batches(lengths, num_tokens=max(tokens_per_batch, self.max_length)))
        return list(fixed_batches(lengths, max_length=self.max_length, tokens_per_batch=tokens_per_batch))

    def run(self, tokens: Sequence[Sequence[int]], batches: Sequence[Batch]) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
        """Yield each batch with the vectors of its real rows, float32 [batch.real, dim], in the order of `batches`.

        On the CPU as many passes run at once as torch has threads (``torch.get_num_threads()``); bits do not depend on it.
        """
        if self.device != "cpu":
            yield from ((batch, self._forward(tokens, batch)) for batch in batches)
            return
        with _one_call_at_a_time:
            num_threads = torch.get_num_threads()
            try:
                with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                    yield from zip(batches, pool.map(lambda batch: self._forward(tokens, batch), batches), strict=True)
            finally:
                torch.set_num_threads(num_threads)

    def vectors(self, tokens: Sequence[Sequence[int]], *, tokens_per_batch: int) -> NDArray[np.float32]:
        """Return the vectors of `tokens` in their order, float32 [len(tokens), dim]."""
        done = list(self.run(tokens, self.batches(tokens, tokens_per_batch=tokens_per_batch)))
        vectors_ND = np.empty((len(tokens), done[0][1].shape[1]), dtype=np.float32)
        for batch, rows in done:
            vectors_ND[list(batch.rows[: batch.real])] = rows
        return vectors_ND

    @property
    def _pad_id(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)

    def _forward(self, tokens: Sequence[Sequence[int]], batch: Batch) -> NDArray[np.float32]:
        return self._packed(tokens, batch) if isinstance(batch, PackedBatch) else self._padded(tokens, batch)

    def _packed(self, tokens: Sequence[Sequence[int]], batch: PackedBatch) -> NDArray[np.float32]:
        ids_T = np.full(batch.num_tokens, self._pad_id, dtype=np.int64)
        positions_T = np.zeros_like(ids_T)
        lengths = [len(tokens[index]) for index in batch.rows]
        ids_T[: sum(lengths)] = np.concatenate([tokens[index] for index in batch.rows])
        positions_T[: sum(lengths)] = np.concatenate([np.arange(length) for length in lengths])
        modules: Sequence[Any] = list(self._model)
        transformer, pooling, *others = modules
        with torch.inference_mode():
            hidden = transformer.auto_model(
                input_ids=torch.from_numpy(ids_T)[None], position_ids=torch.from_numpy(positions_T)[None], runs=batch.runs
            )
            hidden_TD = hidden.last_hidden_state[0].float()
            pooled = [_pooled(pooling, hidden_TD[run.start : run.end].view(run.num_texts, run.length, -1)) for run in batch.runs]
            vectors_BD = torch.cat(pooled)
            room = (0, 0, 0, batch.num_tokens - len(vectors_BD))  # what follows has one shape too, whatever the texts
            features: dict[str, Any] = {"sentence_embedding": torch.nn.functional.pad(vectors_BD, room)}
            for module in others:
                features = module(features)
            vectors: NDArray[np.float32] = features["sentence_embedding"].float().numpy()
        return vectors[: batch.real]

    def _padded(self, tokens: Sequence[Sequence[int]], batch: FixedBatch) -> NDArray[np.float32]:
        ids_BW = np.full((len(batch.rows), batch.width), self._pad_id, dtype=np.int64)
        mask_BW = np.zeros_like(ids_BW)
        for row, index in enumerate(batch.rows):
            length = len(tokens[index])
            where = slice(batch.width - length, None) if self._tokenizer.padding_side == "left" else slice(length)
            ids_BW[row, where] = tokens[index]
            mask_BW[row, where] = 1
        features: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids_BW).to(self.device),
            "attention_mask": torch.from_numpy(mask_BW).to(self.device),
        }
        try:
            with torch.inference_mode():
                features = self._model[0](features)
                features["token_embeddings"] = features["token_embeddings"].float()
                for module in list(self._model)[1:]:
                    features = module(features)
                vectors: NDArray[np.float32] = features["sentence_embedding"].float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise EncoderError(
                f"{self.device} has no memory for {ids_BW.shape[0]} x {batch.width} tokens: lower batch_size."
            ) from error
        return vectors[: batch.real]

    def _check_against_own_encode(self, folder: Path) -> None:
        tokens = self.tokenise(_SELF_CHECK_TEXTS)
        ours = self.vectors(tokens, tokens_per_batch=64)
        own = np.asarray(self._model.encode(_SELF_CHECK_TEXTS, show_progress_bar=False), dtype=np.float32)
        self.dim = int(ours.shape[1])
        cosine = np.sum(ours * own, axis=1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(own, axis=1))
        if not (cosine >= _SELF_CHECK_COSINE).all():
            raise EncoderError(
                f"{folder} needs another input than plain tokens (cosine to its own encode: {cosine.min():.4f}, at least "
                f"{_SELF_CHECK_COSINE} is needed). Choose a text model without chat template or instruction pooling."
            )


def _pooled(pooling: torch.nn.Module, hidden_BLD: torch.Tensor) -> torch.Tensor:
    features = pooling(
        {"token_embeddings": hidden_BLD, "attention_mask": hidden_BLD.new_ones(hidden_BLD.shape[:2], dtype=torch.int64)}
    )
    return torch.as_tensor(features["sentence_embedding"])


def _can_pack(model: SentenceTransformer) -> bool:
    """Return whether `model` numbers positions from zero, attends both ways and pools its tokens; if so, let it attend packed."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer: Any = model[0]
    config = transformer.auto_model.config
    if config.model_type != "bert" or config.is_decoder or len(model) < 2 or not isinstance(model[1], Pooling):
        return False
    packed_attention.register()
    transformer.auto_model.set_attn_implementation(packed_attention.NAME)
    return True


def _load_sentence_transformer(folder: Path, device: str) -> SentenceTransformer:
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer  # takes 7 s to import: only who embeds pays
    from sentence_transformers.base.modules import Transformer
    from transformers.utils.logging import disable_progress_bar

    if device == "cuda" and not torch.cuda.is_available():
        raise EncoderError(
            "device is 'cuda' but torch sees no CUDA device. Use device 'auto' or 'cpu', or install a CUDA build of torch."
        )
    disable_progress_bar()  # of loading 23 MB of weights, which takes a tenth of a second
    try:
        model = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise EncoderError(
            f"Cannot load the model in {folder}: {type(error).__name__}: {error}. Copy it again, complete."
        ) from error
    if not isinstance(model[0], Transformer) or "text" not in model[0].modality_config:
        raise EncoderError(
            f"{folder} is not a transformer for text (its first module is {type(model[0]).__name__}). Choose another."
        )
    return model


def _model_max_length(model: SentenceTransformer) -> int:
    """Return how many tokens the model takes: the smaller of what its tokenizer and its position table allow."""
    transformer: Any = model[0]
    config = transformer.config.get_text_config()
    positions = int(getattr(config, "max_position_embeddings", 512))
    if getattr(config, "model_type", "") in {"roberta", "xlm-roberta", "mpnet", "camembert"}:
        positions -= 2  # these number their positions from pad_token_id + 1
    return min(int(model.max_seq_length or positions), positions)
