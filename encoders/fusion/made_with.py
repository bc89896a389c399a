"""What beside vectors, pairs, config and seed decides the bits of a fusion that is trained by gradient."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["made_with"]


def made_with() -> dict[str, str]:
    """Return the device (always ``cpu``), the processor's instructions and the versions.

    >>> made_with()["device"]
    'cpu'
    """
    about = torch.backends.cpu.get_cpu_capability()
    return {"device": "cpu", "instructions": about, "numpy": np.__version__, "torch": torch.__version__}
