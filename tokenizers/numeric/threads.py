"""Work on blocks of rows, one thread per core, each with a library's product on one thread.

A float32 product of a few hundred rows fits the caches and needs no meeting of threads, so two threads with a block each beat one
product on two threads. Deliberately not here: anything that decides a result; how rows are cut and on how many threads they run
must never matter.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

__all__ = ["Product", "over_blocks", "product_in_blocks", "product_with"]

_ALONE = 2**28  # multiply-adds below which a second thread costs more than it gives
_PRODUCT_ROWS = 256
_WORTH_TORCH = 2**40  # multiply-adds at which a product faster by a fifth makes up for the seconds that importing torch takes

Float32Array = npt.NDArray[np.float32]
Product = Callable[[Float32Array, Float32Array], object]
"""Writes ``rows @ right`` into its second argument."""


def over_blocks(num_rows: int, block_rows: int, worker: Callable[[], Callable[[int, int], None]], *, multiply_adds: int) -> None:
    """Call what `worker` makes, once per thread, on every (start, stop) of at most `block_rows` rows; an exception is passed on.

    As many threads as the BLAS may use (so `OMP_NUM_THREADS` and `threadpoolctl` rule this too), each then with a BLAS of one.
    """
    starts = range(0, num_rows, block_rows)
    threads = min(len(starts), _blas_threads()) if multiply_adds >= _ALONE else 1

    def run(own: range) -> None:
        work = worker()
        for start in own:
            work(start, min(start + block_rows, num_rows))

    if threads <= 1:
        run(starts)
        return
    with _controller().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads, initializer=_one_torch_thread) as pool:
        for done in [pool.submit(run, starts[thread::threads]) for thread in range(threads)]:
            done.result()
    _restore_torch_threads()


def product_in_blocks(rows_BD: Float32Array, right_DK: Float32Array) -> Float32Array:
    """Return ``rows @ right``, by blocks of 256 rows, each on one thread: the bits are the same on any number of threads.

    A BLAS cuts one product into as many pieces as it has threads, and rounds at the edges of a piece as it does not within.
    """
    product_BK = np.empty((len(rows_BD), right_DK.shape[1]), dtype=np.float32)

    def multiply(start: int) -> None:
        block = slice(start, start + _PRODUCT_ROWS)
        np.matmul(rows_BD[block], right_DK, out=product_BK[block])

    threads = max(1, _blas_threads())
    with _controller().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        list(pool.map(multiply, range(0, len(rows_BD), _PRODUCT_ROWS)))
    return product_BK


def product_with(right_DK: Float32Array, *, multiply_adds: int) -> Product:
    """Return the fastest float32 product with `right_DK` at hand: torch's where torch is loaded or the work is long, or NumPy's."""
    torch = _loaded_torch()
    if torch is None and multiply_adds >= _WORTH_TORCH:
        torch = importlib.import_module("torch")
    if torch is None:
        return lambda rows_BD, out_BK: np.matmul(rows_BD, right_DK, out=out_BK)
    right = torch.from_numpy(right_DK)
    return lambda rows_BD, out_BK: torch.mm(torch.from_numpy(rows_BD), right, out=torch.from_numpy(out_BK))


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _blas_threads() -> int:
    return max((library["num_threads"] for library in _controller().info() if library["user_api"] == "blas"), default=1)


def _loaded_torch() -> Any:  # noqa: ANN401  the module, or None
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "set_num_threads") else None  # another thread may just be importing it


def _one_torch_thread() -> None:
    if torch := _loaded_torch():
        torch.set_num_threads(1)  # of this thread


def _restore_torch_threads() -> None:
    """Give threads to come the number that this thread has: torch keeps one number for both, and the pool's threads set it."""
    if torch := _loaded_torch():
        torch.set_num_threads(torch.get_num_threads())
