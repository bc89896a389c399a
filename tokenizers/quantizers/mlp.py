"""A trained multilayer perceptron, run without torch so that a row's result depends on that row alone.

Weights come from float32 training; products run through `exact_product`, so batches, threads and processors change no bit of what
`MLP.__call__` returns. Training is elsewhere (`rq_vae`).

Shapes: N rows, D inputs of a layer, E outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.exact_product import exact_product
from sidlake.tokenizers.numeric.mean_square import mean_square
from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array

__all__ = ["MLP", "Standardiser"]


@dataclass(frozen=True, slots=True, eq=False)
class MLP:
    """Layers of weights [D, E] and biases [E], with a rectifier between them but not after the last.

    >>> MLP([np.float32([[1.0], [-1.0]])], [np.float32([0.5])])(np.float32([[2.0, 1.0]])).tolist()
    [[1.5]]
    """

    weights: list[Float32Array]
    biases: list[Float32Array]

    def __call__(self, x_ND: npt.NDArray[np.floating]) -> Float64Array:
        """Return float64 [N, E of the last layer]."""
        values: Float64Array = x_ND.astype(np.float64)
        for layer, (weight_DE, bias_E) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = exact_product(values, weight_DE) + bias_E
            if layer + 1 < len(self.weights):
                np.maximum(values, 0.0, out=values)
        return values

    def tensors(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Return ``<name>.<layer>.weight`` and ``<name>.<layer>.bias``."""
        found: dict[str, npt.NDArray[Any]] = {}
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            found |= {f"{name}.{layer}.weight": weight, f"{name}.{layer}.bias": bias}
        return found

    @classmethod
    def from_tensors(cls, name: str, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the perceptron of which `tensors` came; `KeyError` where there is none of that name."""
        num_layers = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in tensors)
        if not num_layers:
            raise KeyError(f"{name}.0.weight")
        layers = range(num_layers)
        return cls([tensors[f"{name}.{i}.weight"] for i in layers], [tensors[f"{name}.{i}.bias"] for i in layers])


@dataclass(frozen=True, slots=True, eq=False)
class Standardiser:
    """Centres vectors and divides them by one number, so that their variance per dimension is 1 on average.

    One number, because vectors come fused: their directions differ in variance on purpose, and dividing each by its own would make
    the least of them as loud as the first.
    """

    mean_D: Float32Array
    scale: float

    @classmethod
    def fit(cls, x_ND: Float32Array, *, on: bool) -> Self:
        """Return the rows' standardiser; with `on` False the one that changes nothing."""
        if not on:
            return cls(np.zeros(x_ND.shape[1], np.float32), 1.0)
        mean_D = x_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
        variance = mean_square(x_ND, mean_D)
        # Rows that are all the same need some scale, so small that what a decoder gets wrong is rounding noise beside them.
        return cls(mean_D, float(np.float32(np.sqrt(variance))) or max(float(np.abs(mean_D).max()) * 2.0**-22, 1e-40))

    def forth(self, x_ND: Float32Array) -> Float32Array:
        """Return the standardised rows, float32: 4 bytes per value."""
        rows: Float32Array = np.subtract(x_ND, self.mean_D, dtype=np.float32)
        rows /= np.float32(self.scale)
        return rows

    def back(self, rows_ND: npt.NDArray[np.floating]) -> Float32Array:
        """Return vectors of the standardised rows, float32."""
        x_ND: Float32Array = (rows_ND * self.scale + self.mean_D).astype(np.float32)
        return x_ND

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return ``mean`` and ``scale``."""
        return {"mean": self.mean_D, "scale": np.array([self.scale], dtype=np.float64)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the standardiser of which `tensors` came."""
        return cls(tensors["mean"], float(tensors["scale"][0]))
