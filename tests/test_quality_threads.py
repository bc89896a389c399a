"""Law 4 to the bit: what is measured of one catalogue is the same on one, two and four threads."""

import os
import subprocess
import sys

MEASURED = """
import numpy as np
from sidlake.quality.measure import measure
from sidlake.quality.metrics.sessions import Sessions
rng = np.random.default_rng(3)
num, widths = 20_000, (64, 64, 64)
centroids = rng.standard_normal((3, 64, 24)).astype(np.float32)
codes = rng.zipf(1.4, (num, 3)).astype(np.int64) % 64
final = codes.copy()
final[:200, 2] = (final[:200, 2] + 1) % 64
decode = lambda of: sum(centroids[level][of[:, level]] for level in range(of.shape[1]))
vectors = (decode(codes) + rng.standard_normal((num, 24)) * 0.01).astype(np.float32)
vectors[1::2] = np.nextafter(vectors[::2], np.float32(np.inf))  # near ties, which rounding decides
items = rng.integers(0, num, 900)
sessions = Sessions(items_flat=items, offsets=np.arange(0, 901, 3), targets=rng.integers(0, num, 300))
found = measure(codes, final, widths=widths, vectors_ND=vectors, decode=decode, sessions=sessions,
                categories_N=rng.integers(0, 15_000, num))
for metric in found:
    print(metric.metric, metric.level, None if metric.value is None else float(metric.value).hex())
"""


def measured_on(threads):
    limits = dict.fromkeys(
        ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS"]
    )
    environment = os.environ | {name: str(threads) for name in limits}
    return subprocess.run([sys.executable, "-c", MEASURED], env=environment, capture_output=True, text=True, check=True).stdout


def test_every_metric_has_the_same_bits_on_one_thread_and_on_more():
    assert measured_on(1) == measured_on(2) == measured_on(4)
