"""Who runs this process, as `releases` and `pins` record it: a name to ask, not a proof."""

from __future__ import annotations

import getpass
import os
import socket

__all__ = ["user_at_host"]


def user_at_host() -> str:
    """Return ``user@host``; the user's number where the system has no name for it, as in a container without a passwd entry."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # KeyError before Python 3.13
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
