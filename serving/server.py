"""The service as a process: it listens, says where, and ends its requests before it ends itself (SIGINT, SIGTERM)."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from sidlake.serving.follower import Follower
from sidlake.serving.service import service_of

__all__ = ["bound", "serve"]

_BACKLOG = 2048


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens at `host`, at a free port where `port` is 0; OSError where it cannot."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def serve(follower: Follower, listening: socket.socket, *, every: float, say: Callable[[str], None]) -> None:
    """Answer at `listening` until the process is told to end; `say` is told the address once."""
    host, port = listening.getsockname()[:2]
    address = f"[{host}]" if ":" in host else host
    say(f"serving {follower.snapshot.release.release_id} at http://{address}:{port}; what it answers: /openapi.json")
    config = uvicorn.Config(service_of(follower, every=every), log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listening])
