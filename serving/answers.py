"""What the service answers, field by field: the OpenAPI document is made of these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = [
    "Answer",
    "Asked",
    "Health",
    "ItemAnswer",
    "Listed",
    "ModelAnswer",
    "Page",
    "Recommended",
    "ReleaseAnswer",
    "Suggested",
    "Trouble",
]

MAX_HISTORY = 10_000
MAX_K = 1000


class Answer(BaseModel):
    """Every answer names its release, as the header `X-Sidlake-Release` does."""

    release: str = Field(description="The release that this answer is of, such as r000003.")


class Trouble(Answer):
    """What was wrong with the request, and what to do."""

    error: str


class Health(Answer):
    """`ok`, or `behind`: the newest release or model cannot be read, and `problem` says why."""

    status: str
    problem: str | None


class ModelAnswer(BaseModel):
    """The checkpoint that /recommend asks, and the release that it was trained on."""

    checkpoint: str
    trained_on: str


class ReleaseAnswer(Answer):
    """The release that is served, and its model; `no_model` says why there is none."""

    generation: str
    created_at: datetime
    status: str
    content_hash: str
    num_items: int
    following: str = Field(description="What the service follows: current, a pin, or one release.")
    model: ModelAnswer | None
    no_model: str | None


class ItemAnswer(Answer):
    """An item and its SID; `retired_at` is ISO 8601 in UTC where it has left the catalogue, and its title is unknown then."""

    item_id: str
    sid: str
    codes: list[int]
    title: str | None
    retired_at: str | None


class Listed(BaseModel):
    """An item below a prefix."""

    item_id: str
    sid: str
    title: str | None


class Page(Answer):
    """Items in the order of their codes; `next` is the `after` of the page that follows, null on the last."""

    items: list[Listed]
    next: str | None


def _text(item_id: str) -> str:
    """Return `item_id`; ValueError for half of a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        item_id.encode()
    except UnicodeEncodeError:
        msg = "half of a surrogate pair is no text"
        raise ValueError(msg) from None
    return item_id


class Asked(BaseModel):
    """A history, oldest item first; `exclude_seen` null is as the model was trained."""

    model_config = ConfigDict(extra="forbid", strict=True)

    history: list[Annotated[str, AfterValidator(_text)]] = Field(min_length=1, max_length=MAX_HISTORY)
    k: int = Field(default=10, ge=1, le=MAX_K)
    exclude_seen: bool | None = None


class Suggested(BaseModel):
    """A recommended item; `score` is its log-probability."""

    item_id: str
    sid: str
    title: str | None
    score: float


class Recommended(Answer):
    """Items, best first; `ignored` are the ids of the history that the model does not know."""

    model: ModelAnswer
    items: list[Suggested]
    ignored: list[str]
