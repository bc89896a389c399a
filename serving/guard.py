"""What stands before the application: each request gets its snapshot, each answer its release's name.

The release stands in the header `X-Sidlake-Release` of whatever is answered. Percent-encoding that is not UTF-8 is refused here, as
frameworks put replacement characters in its place and would look up another id; so is a body above a megabyte.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from sidlake.serving.follower import Follower

__all__ = ["HEADER", "Guard"]

HEADER = "X-Sidlake-Release"
_MAX_BODY = 1_000_000

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application around `app`, whose requests find their snapshot in ``request.state.snapshot``."""

    def __init__(self, app: App, follower: Follower) -> None:
        self._app, self._follower = app, follower

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, or pass on what is none (the server's start and end)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._follower.asking() as snapshot:
            scope["state"] = {**scope.get("state", {}), "snapshot": snapshot}
            await self._answer(scope, receive, _naming(send, snapshot.release.release_id), snapshot.release.release_id)

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, release: str) -> None:
        if not (_is_utf8(scope["raw_path"]) and _is_utf8(scope["query_string"].replace(b"+", b" "))):
            await _refuse(send, 400, release, "the address is not UTF-8 once its percent-encoding is undone; encode ids as UTF-8")
            return
        body = b"" if scope["method"] == "GET" else await _body(receive)
        if body is None:
            await _refuse(send, 413, release, f"the body is larger than {_MAX_BODY:,} bytes, which is the limit; send less")
            return
        await self._app(scope, receive if scope["method"] == "GET" else _replaying(body, receive), send)


def _is_utf8(encoded: bytes) -> bool:
    try:
        unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        return False
    return True


async def _body(receive: Receive) -> bytes | None:
    """Return the whole body, or None where it is too large."""
    parts, size = [], 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > _MAX_BODY:
            return None
        if not message.get("more_body", False):  # the end, or the client has gone
            return b"".join(parts)


def _replaying(body: bytes, receive: Receive) -> Receive:
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


def _naming(send: Send, release: str) -> Send:
    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (HEADER.lower().encode(), release.encode())]
        await send(message)

    return named


async def _refuse(send: Send, status: int, release: str, error: str) -> None:
    body = json.dumps({"release": release, "error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
