"""Spectral clustering of a graph: nodes that many edges join come together.

The leading eigenvectors of the normalised adjacency matrix, degrees raised by their mean, which keeps stray pairs and long tails
from taking clusters of their own (regularised spectral clustering; Qin & Rohe 2013); rows scaled to length one (Ng, Jordan & Weiss
2001); k-means. Deterministic: ARPACK starts from a seeded vector, and LAPACK keeps to one thread.

Shape suffixes: I nodes, E eigenvectors.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import eigsh
from threadpoolctl import threadpool_limits

from sidlake.tokenizers.numeric.kmeans import fit_kmeans
from sidlake.tokenizers.numeric.nearest import Float32Array, Int32Array

__all__ = ["spectral_clusters"]

_DENSE_NODES = 600  # up to so many a full eigendecomposition is faster than ARPACK


def spectral_clusters(graph_II: scipy.sparse.csr_array, num_clusters: int, *, seed: int) -> Int32Array:
    """Return codes_I in [0, `num_clusters`), not all of them used, of a symmetric graph in which every node has an edge.

    `ValueError` for more clusters than nodes.
    """
    if not 1 <= num_clusters <= graph_II.shape[0]:
        msg = f"num_clusters must be in [1, {graph_II.shape[0]}], the number of nodes, got {num_clusters}"
        raise ValueError(msg)
    vectors_IE = _eigenvectors(graph_II, num_clusters, seed)
    rng = np.random.default_rng([seed, num_clusters])
    return fit_kmeans(vectors_IE, num_clusters, rng=rng, max_iterations=25, tolerance=1e-4).codes_N


def _eigenvectors(graph_II: scipy.sparse.csr_array, number: int, seed: int) -> Float32Array:
    degrees_I = np.asarray(graph_II.sum(axis=1), dtype=np.float64).ravel()
    scale = scipy.sparse.diags_array(1 / np.sqrt(degrees_I + degrees_I.mean()))
    matrix_II = (scale @ graph_II @ scale).tocsr()
    with threadpool_limits(limits=1, user_api="blas"):
        if graph_II.shape[0] <= max(_DENSE_NODES, 3 * number):
            vectors_IE = np.linalg.eigh(matrix_II.toarray())[1][:, -number:]
        else:
            start_I = np.random.default_rng(seed).standard_normal(graph_II.shape[0])
            vectors_IE = eigsh(matrix_II, k=number, v0=start_I, which="LA", tol=1e-6)[1]
    lengths_I = np.sqrt(np.square(vectors_IE).sum(axis=1, keepdims=True))
    return np.ascontiguousarray(vectors_IE / np.where(lengths_I > 0, lengths_I, 1), dtype=np.float32)
