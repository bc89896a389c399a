"""The HTTP service over a release: items, SIDs, prefixes and recommendations as JSON, described at `/openapi.json`.

Lookups run on the event loop, for one takes microseconds and a thread would take longer to reach; recommending runs in a thread,
one at a time, for one uses all cores. Ids stand in paths whole, slashes and line ends included, percent-encoded. Not done here:
authentication and TLS (put a proxy in front), and writing anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import anyio
from fastapi import FastAPI, HTTPException, Query, Request
from starlette.convertors import PathConvertor, register_url_convertor

from sidlake.serving.answers import (
    MAX_HISTORY,
    MAX_K,
    Asked,
    Health,
    ItemAnswer,
    Listed,
    ModelAnswer,
    Page,
    Recommended,
    ReleaseAnswer,
    Suggested,
    Trouble,
)
from sidlake.serving.follower import Follower
from sidlake.serving.guard import App, Guard
from sidlake.serving.recommender import Recommendations
from sidlake.serving.refusals import shown, speak_in_sentences
from sidlake.serving.snapshot import Snapshot
from sidlake.tokenizers.semantic_id import parse_sid
from sidlake.warehouse.outlets.lookup import Found

__all__ = ["service_of"]

_MAX_PAGE = 1000
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": Trouble}, 400: {"model": Trouble}, 422: {"model": Trouble}}
_NO_MODEL: dict[int | str, dict[str, Any]] = {
    503: {"model": Trouble},
    413: {"model": Trouble},
    400: {"model": Trouble},
    422: {"model": Trouble},
}


class _Whole(PathConvertor):
    """All that follows in the path, line ends too, which Starlette's own `path` leaves out."""

    regex = r"(?s:.*)"


register_url_convertor("whole", _Whole())


def service_of(follower: Follower, *, every: float) -> App:
    """Return the ASGI application that serves what `follower` follows, looking every so many seconds."""

    @asynccontextmanager
    async def following(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(follower.follow(every))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(
        title="sidlake",
        description="Semantic IDs of a release: lookups and recommendations.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=following,
    )
    speak_in_sentences(app)
    _add_release(app, follower)
    _add_lookups(app)
    _add_recommend(app)
    return Guard(app, follower)


def _add_release(app: FastAPI, follower: Follower) -> None:
    @app.get("/health")
    async def health(request: Request) -> Health:
        """Return whether the newest release is served."""
        release = _snapshot(request).release.release_id
        return Health(release=release, status="behind" if follower.problem else "ok", problem=follower.problem)

    @app.get("/release")
    async def release(request: Request) -> ReleaseAnswer:
        """Return the release that is served, and its model."""
        served = _snapshot(request)
        about = served.release
        return ReleaseAnswer(
            release=about.release_id,
            generation=about.generation,
            created_at=about.created_at,
            status=about.status,
            content_hash=about.content_hash,
            num_items=served.lookup.num_items,
            following=follower.asked,
            model=_about_model(served),
            no_model=served.no_model,
        )


def _add_lookups(app: FastAPI) -> None:
    @app.get("/items/{item_id:whole}", responses=_NOT_FOUND)
    async def item(request: Request, item_id: str) -> ItemAnswer:
        """Return an item by its id, however that is spelled; one that has left the catalogue too."""
        served = _snapshot(request)
        found = served.lookup.item(item_id)
        if found is None:
            raise HTTPException(404, f"no item {shown(item_id)} in release {served.release.release_id}")
        return _item(served, found)

    @app.get("/sids/{sid:whole}", responses=_NOT_FOUND)
    async def sid(request: Request, sid: str) -> ItemAnswer:
        """Return the item whose SID this is, spelled like <a_12><b_7><c_33>."""
        served = _snapshot(request)
        _check_sid(sid)
        found = served.lookup.sid(sid)
        if found is None:
            raise HTTPException(404, f"no item has the SID {shown(sid)} in release {served.release.release_id}")
        return _item(served, found)

    @app.get("/prefix/{prefix:whole}", responses=_NOT_FOUND)
    async def prefix(
        request: Request,
        prefix: str,
        limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 100,
        after: Annotated[str | None, Query(description="The SID to go on behind: `next` of the page before.")] = None,
    ) -> Page:
        """Return a page of the items whose SIDs begin with this prefix, by their codes; the empty one is all items'."""
        served = _snapshot(request)
        for sid in (prefix, after):
            if sid:
                _check_sid(sid)
        found = served.lookup.under(prefix, limit=limit + 1, after=after or None)
        items = [Listed(item_id=one.item_id, sid=one.sid, title=served.title(one.item_id)) for one in found[:limit]]
        return Page(release=served.release.release_id, items=items, next=items[-1].sid if len(found) > limit else None)


def _add_recommend(app: FastAPI) -> None:
    one_at_a_time = anyio.CapacityLimiter(1)

    @app.post("/recommend", responses=_NO_MODEL)
    async def recommend(request: Request, asked: Asked) -> Recommended:
        """Return the items that the release's model recommends after a history."""
        return await _recommended(_snapshot(request), asked, one_at_a_time)

    @app.get("/recommend", responses=_NO_MODEL)
    async def recommend_by_address(
        request: Request,
        item: Annotated[list[str], Query(min_length=1, max_length=MAX_HISTORY, description="Oldest first, once per item.")],
        k: Annotated[int, Query(ge=1, le=MAX_K)] = 10,
        exclude_seen: bool | None = None,
    ) -> Recommended:
        """Return the same, the history given as `item=A&item=B`."""
        return await _recommended(_snapshot(request), Asked(history=item, k=k, exclude_seen=exclude_seen), one_at_a_time)


async def _recommended(served: Snapshot, asked: Asked, limiter: anyio.CapacityLimiter) -> Recommended:
    model, about = served.model, _about_model(served)
    if model is None or about is None:
        raise HTTPException(503, f"no recommendations: {served.no_model}")

    def ask() -> Recommendations:
        return model.recommend(asked.history, k=asked.k, exclude_seen=asked.exclude_seen, in_force_N=served.in_force_N)

    made = await anyio.to_thread.run_sync(ask, limiter=limiter)
    if len(made.ignored) == len(asked.history):
        names = ", ".join(shown(one) for one in asked.history[:3])
        msg = f"the model knows no item of the history ({names}): it was trained on {about.trained_on}; name items of that release"
        raise HTTPException(422, msg)
    items = [Suggested(item_id=one.item_id, sid=one.sid, title=served.title(one.item_id), score=one.score) for one in made.items]
    return Recommended(release=served.release.release_id, model=about, items=items, ignored=made.ignored)


def _snapshot(request: Request) -> Snapshot:
    served = request.state.snapshot
    assert isinstance(served, Snapshot)
    return served


def _item(served: Snapshot, found: Found) -> ItemAnswer:
    return ItemAnswer(
        release=served.release.release_id,
        item_id=found.item_id,
        sid=found.sid,
        codes=list(parse_sid(found.sid)),
        title=served.title(found.item_id),
        retired_at=found.retired_at,
    )


def _about_model(served: Snapshot) -> ModelAnswer | None:
    trained = served.model.trained if served.model else None
    return ModelAnswer(checkpoint=trained.name, trained_on=trained.release_id) if trained else None


def _check_sid(sid: str) -> None:
    try:
        parse_sid(sid)
    except ValueError:
        msg = f"{shown(sid)} is not a semantic ID: expected one token per level in order, such as <a_12><b_7><c_33>"
        raise HTTPException(422, msg) from None
