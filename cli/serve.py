"""The command that answers over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from sidlake.cli.output import DEFAULT_WAREHOUSE, WarehouseOption, open_warehouse, print_error, print_line, usage

__all__ = ["serve"]


def serve(
    warehouse: WarehouseOption = DEFAULT_WAREHOUSE,
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine reach 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    release: Annotated[str, typer.Option(help="What to follow: current, a pin (prod), or one release.")] = "current",
    checkpoint: Annotated[str | None, typer.Option(help="Trained model to ask; the release's own, if none.")] = None,
    every: Annotated[float, typer.Option(min=0.05, max=3600, help="Seconds between two looks for a new release.")] = 2.0,
) -> None:
    """Answer over HTTP: items, SIDs, prefixes and recommendations of the current release, which it follows.

    Example: sidlake serve --port 8000
    """
    try:
        from sidlake.serving.server import bound
        from sidlake.serving.server import serve as answer
    except ImportError as error:
        usage(f"serving needs {error.name}: pip install 'sidlake[serve]'")
    from sidlake.serving.follower import Follower

    lake = open_warehouse(warehouse)
    try:
        listening = bound(host, port)
    except OSError as error:
        usage(f"cannot listen at {host}:{port}: {error.strerror or error}; name another --host or --port")
    with listening:
        follower = Follower(lake, release=release, checkpoint=checkpoint, say=print_error)
        if follower.snapshot.no_model:
            print_error(f"no recommendations: {follower.snapshot.no_model}")
        answer(follower, listening, every=every, say=print_line)
