"""What the service says when it refuses: one sentence and the release, whatever was asked; never a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as HTTPError

__all__ = ["shown", "speak_in_sentences"]

_MAX_SHOWN = 80


def speak_in_sentences(app: FastAPI) -> None:
    """Make `app` answer errors as `answers.Trouble`: what broke, the value, the remedy."""
    app.add_exception_handler(RequestValidationError, _on_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPError, _on_refused)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _on_fault)


def shown(value: object) -> str:
    """Return `value` as one short printable word of a sentence."""
    spelled = repr(value)
    return spelled if len(spelled) <= _MAX_SHOWN else spelled[: _MAX_SHOWN - 1] + "…"


def _refusal(request: Request, status: int, error: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"release": request.state.snapshot.release.release_id, "error": error}, status, headers)


async def _on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    return _refusal(request, 422, "; ".join(_sentence(one) for one in error.errors()[:3]))


def _sentence(one: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in one["loc"][1:])
    if one["type"] == "json_invalid":
        return f"the body is not JSON: {one['ctx']['error']} at character {place}"
    given = "" if one["type"] == "missing" else f", got {shown(one['input'])}"
    return f"{place or 'the body'}: {one['msg']}{given}"


async def _on_refused(request: Request, error: HTTPError) -> JSONResponse:
    message = error.detail
    if error.status_code == 404 and message == "Not Found":
        message = f"there is nothing at {shown(request.url.path)}; what there is, is at /openapi.json"
    elif error.status_code == 405:
        message = f"{request.url.path} takes no {request.method}; see /openapi.json"
    return _refusal(request, error.status_code, message, error.headers)


async def _on_fault(request: Request, error: Exception) -> JSONResponse:
    return _refusal(request, 500, "a fault of the service, not of the request; its log says more")  # and uvicorn logs the traceback
