"""Fits hold what their docstrings say: the figure is read from the docstring and measured in a process of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from memory_sample import DIM, KEPT, LATENT, SETTINGS

from sidlake.encoders.fusion.config import BLOCK_KINDS
from sidlake.encoders.fusion.fusion import Fusion
from sidlake.tokenizers.registry import KINDS, tokenizer_class

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of resident memory is reset as Linux does it")

SLACK = (
    32 + 0.05 * DIM * 4
)  # bytes per row: its number, codes and norms, and a twentieth of its values for pages that the allocator keeps
FUSIONS = ["concat", "plain", "rank", "pca", "cca", "align", "contrastive"]


@pytest.fixture(scope="module")
def measured():
    """Bytes per row of each fit; big arrays go back to the system when they are freed."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    script = Path(__file__).with_name("memory_sample.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def said(fit):
    """Return bytes per row as the docstring of `fit` has it: so many per value of the rows and, or instead, of their latents."""
    text = " ".join(fit.__doc__.split())
    found = re.search(
        r"Memory: (\d+) bytes per value of the rows(?: fitted)?(?:, (and|or) (\d+) per value of their latents)?", text
    )
    rows, how, latents = found.groups()
    parts = int(rows) * DIM, int(latents or 0) * LATENT
    return max(parts) if how == "or" else sum(parts)


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_tokenizers_fit_holds_what_its_docstring_says_and_not_much_less(kind, measured):
    stated = said(tokenizer_class(kind).fit)
    assert 0.6 * stated < measured[kind] < stated + SLACK


@pytest.mark.parametrize("kind", FUSIONS)
def test_a_fusions_fit_holds_a_block_and_not_a_modality(kind, measured):
    text = " ".join(Fusion.fit.__doc__.split())
    per_row, kept, pair = map(
        int, re.search(r"Memory: (\d+) bytes per row.*pairs (\d+) bytes more.*, (\d+) bytes per pair", text).groups()
    )
    stated = per_row if kind in BLOCK_KINDS | {"pca", "cca", "align"} else per_row + kept * 2 * KEPT + pair
    assert measured[f"fusion {kind}"] < stated + SLACK < 4 * DIM * 2


def test_every_tokenizer_whose_docstring_states_bytes_is_measured():
    stating = {kind for kind in KINDS if "bytes per value" in (tokenizer_class(kind).fit.__doc__ or "")}
    assert stating - {"beam_kmeans"} == set(SETTINGS)  # which fits as residual k-means does, by the same function
