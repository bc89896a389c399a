"""RQ-VAE: an encoder whose latent is quantized residually, and a decoder that makes the vector of it again (TIGER, GRID, FORGE).

As published it collapses: most codes are never used. Three things prevent it, each a setting so that its effect can be seen:
`standardise` (inputs of unit variance), `warm_start` (the autoencoder trains alone for a while, then k-means on its latents makes
the first codebooks) and revival of unused codes. Inference runs without torch, so that codes depend on the row alone (`mlp`).

Rajput et al. 2023, arXiv 2305.05065 (TIGER); Lee et al. 2022, arXiv 2203.01941 (RQ-VAE). Not done: rotation trick, Gumbel.

Shape suffixes: N rows, D input dimensions, E latent dimensions, L levels, K codes, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.fit_input import check_facts, check_fit, check_trained, fit_rows, pairs_among
from sidlake.tokenizers.numeric.nearest import Float32Array, nearest_codes, paired_squared_distances
from sidlake.tokenizers.quantizers.additive import AdditiveTokenizer, subtract_codes
from sidlake.tokenizers.quantizers.mlp import MLP, Standardiser
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from sidlake.tokenizers.settings import check_settings
from sidlake.tokenizers.tokenizer import ItemFacts, checked_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sidlake.tokenizers.quantizers.training import Quantizer

__all__ = ["RQVAE", "RQVAEConfig", "Training"]

_CODEBOOK_ITERATIONS = 10
_LAST_ROUNDS = 8
_BLOCK_ROWS = 8192
_LAST_REVIVAL = 0.8  # of the steps: codes moved later would not have learned


@dataclass(frozen=True, kw_only=True, slots=True)
class RQVAEConfig:
    """How an RQ-VAE is built and trained.

    Attributes:
        hidden: sizes of the encoder's hidden layers; the decoder mirrors them.
        latent_dim: dimensions of the latent.
        warm_start: share of the steps that train the autoencoder alone before k-means makes the codebooks; 0 starts both at random.
        standardise: divide the inputs by their scale.
        num_steps: training steps of Adam.
        batch_size: rows of a training step.
        learning_rate: of Adam.
        beta: weight of the commitment of latents to their codes.
        revive_every: training steps after which unused codes move; 0 never.
        sinkhorn_epsilon: entropy of the transport that assigns codes in training, by which scores are divided; 0 takes the
            nearest.
        sinkhorn_iterations: rounds of that transport.
    """

    widths: tuple[int, ...]
    seed: int = 0
    max_fit_rows: int = 1_000_000
    hidden: tuple[int, ...] = (256, 128)
    latent_dim: int = 64
    num_steps: int = 1500
    batch_size: int = 1024
    learning_rate: float = 1e-3
    warm_start: float = 0.2
    standardise: bool = True
    beta: float = 0.25
    revive_every: int = 25
    sinkhorn_epsilon: float = 0.0
    sinkhorn_iterations: int = 5
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(self)


class RQVAE(AdditiveTokenizer):
    """A fitted RQ-VAE: `latents` is the encoder, `decode` the decoder of the sum of centroids."""

    kind = "rq_vae"
    farthest = 50.0  # one number scales all rows, and errors count squared: at 300 the others' codes are lost
    config_type = RQVAEConfig

    def __init__(
        self,
        centroids: list[Float32Array],
        counts: list[npt.NDArray[np.int64]],
        config: Any,  # noqa: ANN401  each kind has its own
        networks: tuple[Standardiser, MLP, MLP],
        own: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        self.standardiser, self.encoder, self.decoder = networks
        self.own = dict(own or {})
        super().__init__(centroids, counts, config)

    @property
    def dim(self) -> int:
        """Dimensions of the input vectors."""
        return len(self.standardiser.mean_D)

    @classmethod
    def fit(cls, x_ND: npt.ArrayLike, config: Any, *, facts: ItemFacts | None = None) -> Self:  # noqa: ANN401
        """Return a trained tokenizer; deterministic on a CPU.

        Memory: 4 bytes per value of the rows, and 10 per value of their latents; 4 more per value of the rows where they are a
        sample, or not float32.

        `FitError` as every tokenizer, and where a fact is missing that the kind learns from.
        """
        num_rows = len(check_fit(x_ND, config, cls))
        known = check_facts(facts or ItemFacts(), cls.fit_needs, cls.kind, num_rows) if cls.fit_needs else ItemFacts()
        pairs_P2 = known.pairs_P2 if "pairs_P2" in cls.fit_needs else None
        x, rows = fit_rows(x_ND, config, cls, pairs_P2=pairs_P2)
        if pairs_P2 is not None:
            known = replace(known, pairs_P2=pairs_among(pairs_P2, rows, num_rows))
        standardiser = Standardiser.fit(x, on=config.standardise)
        training = Training(standardiser.forth(x), config, cls._losses(config, known, rows))
        centroids = training.run()
        networks = (standardiser, *training.networks())
        check_trained(cls.kind, *centroids, *(tensor for mlp in networks[1:] for tensor in mlp.tensors("").values()))
        zeros = [np.zeros(width, np.int64) for width in config.widths]
        if config.revive_every:
            centroids = _without_unused(cls(centroids, zeros, config, networks).latents(x), centroids)
        codes_NL = cls(centroids, zeros, config, networks).encode(x)
        counts = [np.bincount(codes_NL[:, level], minlength=width) for level, width in enumerate(config.widths)]
        model = cls(centroids, counts, config, networks, cls._provenance(known))
        model.made_with = training.made_with
        return model

    @classmethod
    def _losses(cls, config: Any, facts: ItemFacts, rows: npt.NDArray[np.int64]) -> MoreLosses | None:  # noqa: ANN401
        """Return what the kind learns beside reconstruction; nothing here."""
        return None

    @classmethod
    def _provenance(cls, facts: ItemFacts) -> dict[str, npt.NDArray[Any]]:
        """Return tensors that say what the kind learned from; none here."""
        return {}

    def latents(self, x_ND: npt.ArrayLike) -> Float32Array:
        """Return z_NE, what the encoder makes of the rows, float32; each depends on its row alone, bit for bit."""
        x = checked_rows(x_ND, self.dim)
        z_NE = np.empty((len(x), self.centroids[0].shape[1]), dtype=np.float32)
        for start in range(0, len(x), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            z_NE[part] = self.encoder(self.standardiser.forth(x[part]))
        return z_NE

    def _to_input(self, z_NE: Float32Array) -> Float32Array:
        return self.standardiser.back(self.decoder(z_NE))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return the codebooks, the networks and what the kind noted."""
        networks = self.standardiser.tensors() | self.encoder.tensors("encoder") | self.decoder.tensors("decoder")
        return super().tensors() | networks | {f"own.{name}": self.own[name] for name in sorted(self.own)}

    @classmethod
    def from_tensors(cls, config: Any, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:  # noqa: ANN401  each kind has its own
        """Return the tokenizer of which `tensors` came."""
        levels = range(len(config.widths))
        networks = (
            Standardiser.from_tensors(tensors),
            MLP.from_tensors("encoder", tensors),
            MLP.from_tensors("decoder", tensors),
        )
        own = {name.removeprefix("own."): values for name, values in tensors.items() if name.startswith("own.")}
        centroids = [tensors[f"centroids.{i}"] for i in levels]
        return cls(centroids, [tensors[f"counts.{i}"] for i in levels], config, networks, own)


def _without_unused(z_NE: Float32Array, centroids: list[Float32Array]) -> list[Float32Array]:
    """Return the codebooks with codes that no row uses moved to the rows farthest from their code, as the last revival.

    Training may lose a code or two after its last revival; the decoder knows what such a code says, being at a row's latent.
    """
    residual, filled = z_NE.copy(), []
    for level_KE in centroids:
        level = level_KE.copy()
        for _ in range(_LAST_ROUNDS):
            codes = nearest_codes(residual, level)
            dead = np.flatnonzero(np.bincount(codes, minlength=len(level)) == 0)
            if not len(dead):
                break
            squared = paired_squared_distances(residual, np.arange(len(residual)), level, codes)
            farthest = np.argsort(-squared, kind="stable")[: len(dead)]
            level[dead[: len(farthest)]] = residual[farthest]
        filled.append(level)
        subtract_codes(residual, level, nearest_codes(residual, level))
    return filled


class MoreLosses:
    """What a kind learns beside reconstruction: called every step with the training, returns a loss to add."""

    def parameters(self, training: Training) -> list[nn.Parameter]:
        """Return the loss's own parameters, made on first use."""
        return []

    def __call__(self, training: Training, step: int) -> Tensor:
        """Return the loss of one step."""
        raise NotImplementedError


class Training:
    """One training run: networks, codebooks, batches.

    Attributes:
        x: standardised rows, a tensor [N, D] on the device.
        encoder, decoder: the networks. quantizer: the codebooks, from the warm start on.
        generator: draws batches and revivals.
    """

    encoder: nn.Sequential
    decoder: nn.Sequential
    quantizer: Quantizer
    generator: torch.Generator
    made_with: dict[str, str]

    def __init__(self, x_ND: Float32Array, config: RQVAEConfig, more: MoreLosses | None) -> None:
        import torch

        self.config = config
        self.x = torch.from_numpy(x_ND).to(config.device)
        self.more = more

    def run(self) -> list[Float32Array]:
        """Train, and return the codebooks as float32 arrays."""
        import torch

        from sidlake.tokenizers.quantizers.training import Quantizer, QuantizerSettings, made_with, network, one_thread

        config = self.config
        self.made_with = made_with(config.device)
        with one_thread(config.seed) as self.generator:
            sizes = (self.x.shape[1], *config.hidden, config.latent_dim)
            self.encoder, self.decoder = network(sizes).to(config.device), network(sizes[::-1]).to(config.device)
            alone = int(config.num_steps * config.warm_start)
            self._optimise(alone, quantize=False, parameters=[*self.encoder.parameters(), *self.decoder.parameters()])
            settings = QuantizerSettings(
                beta=config.beta,
                revive_every=config.revive_every,
                sinkhorn_epsilon=config.sinkhorn_epsilon,
                sinkhorn_iterations=config.sinkhorn_iterations,
            )
            self.quantizer = Quantizer(self._first_codebooks(torch), settings).to(config.device)
            own = self.more.parameters(self) if self.more else []
            learned = [*self.encoder.parameters(), *self.decoder.parameters(), *self.quantizer.parameters(), *own]
            self._optimise(config.num_steps - alone, quantize=True, parameters=learned)
        return [level.detach().cpu().numpy().copy() for level in self.quantizer.codebooks]

    def networks(self) -> tuple[MLP, MLP]:
        """Return the trained encoder and decoder."""
        from sidlake.tokenizers.quantizers.training import trained_mlp

        return trained_mlp(self.encoder), trained_mlp(self.decoder)

    def quantized(self, x_BD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the reconstructions [B, D], quantized latents [B, E], the quantization loss and codes [B, L]."""
        z_BE = self.encoder(x_BD)
        z_q_BE, loss, codes_BL = self.quantizer(z_BE)
        return self.decoder(z_q_BE), z_q_BE, loss, codes_BL

    def draw(self, high: int) -> Tensor:
        """Return a batch of whole numbers below `high`."""
        import torch

        drawn = torch.randint(high, (self.config.batch_size,), generator=self.generator)
        return drawn.to(self.x.device)

    def _optimise(self, num_steps: int, *, quantize: bool, parameters: list[nn.Parameter]) -> None:
        import torch
        from torch.nn import functional

        if not num_steps:
            return
        optimizer = torch.optim.Adam(parameters, lr=self.config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
        for step in range(num_steps):
            x_BD = self.x[self.draw(len(self.x))]
            if quantize:
                decoded, _, loss, _ = self.quantized(x_BD)
                loss = loss + functional.mse_loss(decoded, x_BD)
                if self.more is not None:
                    loss = loss + self.more(self, step)
            else:
                loss = functional.mse_loss(self.decoder(self.encoder(x_BD)), x_BD)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if quantize and step < _LAST_REVIVAL * num_steps:
                self.quantizer.revive(self.encoder(x_BD), self.generator)

    def _first_codebooks(self, torch: Any) -> list[Float32Array]:  # noqa: ANN401  the module
        widths, latent_dim = self.config.widths, self.config.latent_dim
        if not self.config.warm_start:
            return [torch.nn.init.uniform_(torch.empty(width, latent_dim), -1 / width, 1 / width).numpy() for width in widths]
        with torch.no_grad():
            z_NE = np.empty((len(self.x), latent_dim), dtype=np.float32)
            for row in range(0, len(z_NE), _BLOCK_ROWS):
                z_NE[row : row + _BLOCK_ROWS] = self.encoder(self.x[row : row + _BLOCK_ROWS]).cpu().numpy()
        check_trained("the autoencoder", z_NE)
        start = ResidualKMeansConfig(widths=widths, seed=self.config.seed, max_iterations=_CODEBOOK_ITERATIONS)
        return list(ResidualKMeans.fit(z_NE, start).centroids)
