"""What every asset says of itself: who owns it, and which version of the code writes it."""

from sidlake.pipelines.run import STEP_VERSION

__all__ = ["CODE_VERSION", "OWNERS"]

OWNERS = ["team:sidlake"]
CODE_VERSION = str(STEP_VERSION)
"""Raised with `STEP_VERSION`, so that the UI marks as stale what the next run will do again."""
