"""QINCo: residual quantization whose codebooks are made by a network from what the codes before have said.

At level l a code k adds f(x̂, c_k), where x̂ is the reconstruction so far and c_k the code's base vector: c_k itself plus a network
of both. The network ends in zeros before training, so the first model is the residual k-means it starts from, and training can only
leave it for something better. To encode, the `candidates` base vectors nearest to the residual are turned into what they add, and
the nearest of those wins (QINCo2's pre-selection; with ``candidates >= width`` it is QINCo's exhaustive search).

Vectors are reduced to `latent_dim` principal components first, so that training takes a minute on one core. What a code adds
depends on its prefix (`implicit`), so uniqueness strategies ask for the candidates of a prefix when they need them.

Huijben et al. 2024, arXiv 2401.14732; Vallaeys et al. 2025, arXiv 2501.03078 (QINCo2). Not done: beam search, whose gain there is
the larger half. Shape suffixes: N rows, D input dimensions, E latent dimensions, K codes, A candidates, P pairs of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.fit_input import check_trained, fit_rows
from sidlake.tokenizers.numeric.exact_product import exact_product
from sidlake.tokenizers.numeric.mean_square import mean_square
from sidlake.tokenizers.numeric.nearest import (
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    paired_squared_distances,
    squared_distances_f64,
)
from sidlake.tokenizers.quantizers.additive import AdditiveTokenizer
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from sidlake.tokenizers.settings import check_settings
from sidlake.tokenizers.tokenizer import ItemFacts, checked_codes, checked_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["QINCo", "QINCoConfig"]

_PARTS = ("code", "partial", "bias", "up", "down")
_ENCODE_ROWS = 2048
_BLOCK_ROWS = 16_384


@dataclass(frozen=True, kw_only=True, slots=True)
class QINCoConfig:
    """How QINCo is built and trained.

    Attributes:
        latent_dim: principal components that are quantized; at most as many as the vectors have dimensions.
        hidden_dim, num_blocks: width and number of the residual blocks of a level's network.
        candidates: base vectors that are turned into what they add, per row and level.
        num_steps: training steps of Adam.
        batch_size: rows of a training step.
        learning_rate: of Adam.
    """

    widths: tuple[int, ...]
    seed: int = 0
    max_fit_rows: int = 1_000_000
    latent_dim: int = 64
    hidden_dim: int = 128
    num_blocks: int = 2
    candidates: int = 16
    num_steps: int = 1500
    batch_size: int = 512
    learning_rate: float = 1e-3
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(self, num_steps=0)


class QINCo(AdditiveTokenizer):
    """A fitted QINCo: base codebooks as `centroids`, per level from the second on a network, and the principal components."""

    kind = "qinco"
    farthest = 1000.0  # one number scales all rows
    config_type = QINCoConfig

    def __init__(
        self,
        centroids: Sequence[Float32Array],
        counts: Sequence[Int64Array],
        config: Any,  # noqa: ANN401
        own: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        self.own = dict(own)
        super().__init__(centroids, counts, config)
        self._mean_D, self._axes_DE = self.own["mean"], self.own["axes"]

    @property
    def dim(self) -> int:
        """Dimensions of the input vectors."""
        return len(self.own["mean"])

    @property
    def implicit(self) -> bool:
        """What a code adds depends on the codes before it."""
        return True

    @classmethod
    def fit(cls, x_ND: npt.ArrayLike, config: QINCoConfig, *, facts: ItemFacts | None = None) -> Self:
        """Return a trained tokenizer; deterministic on a CPU. Errors of every tokenizer's fit.

        Memory: 4 bytes per value of the rows, or 10 per value of their latents where that is more; 4 more per value of the rows
        where they are a sample, or not float32.
        """
        from sidlake.tokenizers.quantizers.training import made_with

        x, _ = fit_rows(x_ND, config, cls)
        mean_D = x.mean(axis=0, dtype=np.float64).astype(np.float32)
        axes_DE = _principal_axes(x - mean_D, min(config.latent_dim, x.shape[1]))
        z_NE = _projected(x, mean_D, axes_DE)
        start = ResidualKMeansConfig(widths=config.widths, seed=config.seed, max_fit_rows=max(len(x), *config.widths))
        first = ResidualKMeans.fit(z_NE, start)
        centroids, networks = _train(z_NE, list(first.centroids), config)
        check_trained(cls.kind, *centroids, *networks.values())
        own = {"mean": mean_D, "axes": axes_DE} | networks
        zeros = [np.zeros(width, np.int64) for width in config.widths]
        codes_NL = cls(centroids, zeros, config, own).encode(x)
        counts = [np.bincount(codes_NL[:, level], minlength=width) for level, width in enumerate(config.widths)]
        model = cls(centroids, counts, config, own)
        model.made_with = made_with(config.device)
        return model

    def latents(self, x_ND: npt.ArrayLike) -> Float32Array:
        """Return z_NE, the rows' principal components, float32."""
        return _projected(checked_rows(x_ND, self.dim), self._mean_D, self._axes_DE)

    def _to_input(self, z_NE: Float32Array) -> Float32Array:
        x_ND: Float32Array = exact_product(z_NE, np.ascontiguousarray(self._axes_DE.T)) + self._mean_D
        return x_ND.astype(np.float32)

    def increments(self, prefix: Sequence[int]) -> Float32Array:
        """Return what each code of the level after `prefix` adds, float32 [K, E]."""
        level = len(prefix)
        partial_1E = self._partial(np.asarray(prefix, np.int32)[None, :], level)
        every = np.arange(self.widths[level])
        return self._added(level, np.repeat(partial_1E, len(every), axis=0), every)

    def decode(self, codes_NL: npt.ArrayLike, depth: int | None = None) -> Float32Array:
        """Return x_ND, what the first `depth` levels (all, if None) say of the vectors."""
        codes = checked_codes(codes_NL, self.widths, depth)
        return self._to_input(self._partial(codes, codes.shape[1]))

    def encode_with_norms(
        self, x_ND: npt.ArrayLike, *, facts: ItemFacts | None = None, device: str = "cpu"
    ) -> tuple[Int32Array, Float64Array]:
        """Return codes_NL, level by level the nearest of the candidates (ties to the lowest code), and norms_N of what is left."""
        x = checked_rows(x_ND, self.dim)
        codes, norms = np.empty((len(x), len(self.widths)), dtype=np.int32), np.empty(len(x))
        for start in range(0, len(x), _ENCODE_ROWS):
            part = slice(start, start + _ENCODE_ROWS)
            codes[part], norms[part] = self._encode_rows(self.latents(x[part]))
        return codes, norms

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return base codebooks, counts, principal components and networks."""
        return super().tensors() | {f"own.{name}": self.own[name] for name in sorted(self.own)}

    @classmethod
    def from_tensors(cls, config: Any, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:  # noqa: ANN401  each kind has its own
        """Return the tokenizer of which `tensors` came."""
        levels = range(len(config.widths))
        own = {name.removeprefix("own."): values for name, values in tensors.items() if name.startswith("own.")}
        return cls([tensors[f"centroids.{i}"] for i in levels], [tensors[f"counts.{i}"] for i in levels], config, own)

    def _encode_rows(self, z_NE: Float32Array) -> tuple[Int32Array, Float64Array]:
        codes = np.empty((len(z_NE), len(self.widths)), dtype=np.int32)
        partial, residual, squared = np.zeros_like(z_NE), z_NE, np.zeros(len(z_NE))
        for level, width in enumerate(self.widths):
            num = min(self.config.candidates if level else width, width)
            distances = squared_distances_f64(residual, self.centroids[level])
            # candidates ascending, so that of equally near ones the lowest code comes first
            tried_NA = np.sort(np.argsort(distances, axis=1, kind="stable")[:, :num], axis=1)
            rows_P = np.repeat(np.arange(len(z_NE)), num)
            added_PE = self._added(level, partial[rows_P], tried_NA.ravel())
            squared_NA = paired_squared_distances(residual, rows_P, added_PE, np.arange(len(rows_P))).reshape(-1, num)
            best = squared_NA.argmin(axis=1)
            taken = np.arange(len(z_NE)) * num + best
            codes[:, level] = tried_NA.ravel()[taken]
            squared = squared_NA[np.arange(len(z_NE)), best]
            partial, residual = partial + added_PE[taken], residual - added_PE[taken]
        return codes, np.sqrt(squared)

    def _partial(self, codes_NL: npt.NDArray[Any], depth: int) -> Float32Array:
        """Return the reconstruction in the latent space after `depth` levels."""
        partial = np.zeros((len(codes_NL), self.centroids[0].shape[1]), dtype=np.float32)
        for level in range(depth):
            partial = partial + self._added(level, partial, codes_NL[:, level])
        return partial

    def _added(self, level: int, partial_PE: Float32Array, codes_P: npt.NDArray[np.integer]) -> Float32Array:
        """Return what ``codes_P[i]`` adds after the reconstruction ``partial_PE[i]``, float32 [P, E]; bits of the pair alone."""
        base: Float32Array = self.centroids[level]
        if level == 0 or not len(codes_P):
            chosen: Float32Array = base[codes_P]
            return chosen
        part = {name: self.own[f"{name}.{level}"] for name in _PARTS}
        of_codes = base + exact_product(base, part["code"])
        values = of_codes[codes_P] + exact_product(partial_PE, part["partial"]) + part["bias"]
        for up_EH, down_HE in zip(part["up"], part["down"], strict=True):
            values = values + exact_product(np.maximum(exact_product(values, up_EH), 0.0), down_HE)
        added: Float32Array = values.astype(np.float32)
        return added


def _projected(x_ND: Float32Array, mean_D: Float32Array, axes_DE: Float32Array) -> Float32Array:
    """Return z_NE, float32, a block of rows at a time."""
    z_NE = np.empty((len(x_ND), axes_DE.shape[1]), dtype=np.float32)
    for start in range(0, len(x_ND), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        z_NE[part] = exact_product(x_ND[part] - mean_D, axes_DE)
    return z_NE


def _principal_axes(centred_ND: Float32Array, num: int) -> Float32Array:
    """Return axes_DE, orthonormal, by falling variance, the largest entry of each positive."""
    covariance = exact_product(centred_ND.T, centred_ND)
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :num]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(num)])
    return np.ascontiguousarray(axes * signs, dtype=np.float32)


def _train(
    z_NE: Float32Array, centroids: list[Float32Array], config: QINCoConfig
) -> tuple[list[Float32Array], dict[str, npt.NDArray[Any]]]:
    """Return base codebooks and networks after `num_steps` of Adam on the sum of the levels' squared errors."""
    import torch

    from sidlake.tokenizers.quantizers.training import one_thread

    scale = math.sqrt(mean_square(z_NE)) or 1.0
    with one_thread(config.seed) as generator:
        books = [torch.nn.Parameter(torch.from_numpy(level / np.float32(scale)).to(config.device)) for level in centroids]
        nets = [_first_network(z_NE.shape[1], config) for _ in books[1:]]
        rows = torch.from_numpy(z_NE / np.float32(scale)).to(config.device)
        parameters = [*books, *(tensor for net in nets for tensor in net.values())]
        optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(config.num_steps, 1))
        for _ in range(config.num_steps):
            batch = rows[torch.randint(len(rows), (config.batch_size,), generator=generator).to(config.device)]
            loss = _loss(batch, books, nets, config.candidates)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    # Everything but the bias is linear or a rectifier, so undoing the scale touches codebooks and biases alone.
    networks = {
        f"{name}.{level + 1}": (tensor.detach().cpu().numpy() * np.float32(scale if name == "bias" else 1)).astype(np.float32)
        for level, net in enumerate(nets)
        for name, tensor in net.items()
    }
    return [(book.detach().cpu().numpy() * np.float32(scale)).astype(np.float32) for book in books], networks


def _first_network(dim: int, config: QINCoConfig) -> dict[str, torch.nn.Parameter]:
    """Return a level's parameters: those that add to the base vector are zeros."""
    import torch

    shape = (config.num_blocks, dim, config.hidden_dim)
    up = torch.randn(shape) * (2 / dim) ** 0.5
    first = {
        "code": torch.zeros(dim, dim),
        "partial": torch.zeros(dim, dim),
        "bias": torch.zeros(dim),
        "up": up,
        "down": torch.zeros(config.num_blocks, config.hidden_dim, dim),
    }
    return {name: torch.nn.Parameter(tensor.to(config.device)) for name, tensor in first.items()}


def _loss(batch_BE: Tensor, books: list[Any], nets: list[dict[str, Any]], candidates: int) -> Tensor:
    """Return the squared error after each level, summed over levels, mean over the batch; codes are the nearest candidates."""
    import torch

    partial = torch.zeros_like(batch_BE)
    total = batch_BE.new_zeros(())
    for level, book in enumerate(books):
        residual = batch_BE - partial
        with torch.no_grad():
            distances = residual.square().sum(1, keepdim=True) - 2 * residual @ book.T + book.square().sum(1)
            if level == 0:
                code = distances.argmin(dim=1)
            else:
                tried = distances.topk(min(candidates, len(book)), dim=1, largest=False).indices
                added = _added_in_training(book[tried], partial[:, None], nets[level - 1])
                best = (residual[:, None] - added).square().sum(2).argmin(dim=1)
                code = tried.gather(1, best[:, None])[:, 0]
        chosen = book[code] if level == 0 else _added_in_training(book[code], partial, nets[level - 1])
        total = total + (residual.detach() - chosen).square().sum(1).mean()
        partial = (partial + chosen).detach()
    return total


def _added_in_training(code: Tensor, partial: Tensor, net: dict[str, Any]) -> Tensor:
    values: Tensor = code + code @ net["code"] + partial @ net["partial"] + net["bias"]
    for up, down in zip(net["up"], net["down"], strict=True):
        values = values + (values @ up).clamp_min(0) @ down
    return values
