"""Numbers and times out of text: what reads in one way only is read, whatever stands in the other rows."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidlake.errors import RecipeError
from sidlake.pipelines.ingest.numbers import number_of_text, time_of_number, time_of_text, to_utc
from sidlake.pipelines.settings.sources import ColumnType

NINE = datetime(2024, 3, 1, 9, tzinfo=UTC)
IN_BETWEEN = st.datetimes(datetime(1981, 1, 1), datetime(2099, 1, 1))


def number(text, decimal=None):
    return number_of_text(pl.Series([text], dtype=pl.String), decimal)[0]


def time(value, **how):
    told = ColumnType(**how) if how else None
    if isinstance(value, str):
        return time_of_text(pl.Series([value]), told)[0]
    return time_of_number(pl.Series([value]), told)[0]


@pytest.mark.parametrize(
    ("text", "decimal", "wanted"),
    [
        ("£1,234.50", None, 1234.5), ("1,234,567", None, 1234567.0), ("1 234,50 €", ",", 1234.5), ("1.234", ",", 1234.0),
        ("1'234.50", None, 1234.5), ("-£3.20", None, -3.2), ("USD 12.5", None, 12.5), ("1e3", None, 1000.0), (".5", None, 0.5),
        ("\u22125", None, -5.0), ("+5", None, 5.0), ("1,234", ".", 1234.0), ("12,5", ",", 12.5), ("10.000.000", ",", 10_000_000.0),
    ],
)  # fmt: skip
def test_a_number_that_reads_in_one_way_is_read(text, decimal, wanted):
    assert number(text, decimal) == wanted


@pytest.mark.parametrize(
    ("text", "decimal"),
    [
        ("1,234", None),
        ("12,5", None),
        ("1,23,4", None),
        ("1.5", ","),
        ("two", None),
        ("1.2.3", None),
        ("12-", None),
        ("0x1f", None),
    ],
)
def test_a_number_that_may_be_another_is_not_read(text, decimal):
    assert number(text, decimal) is None


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-01T09:00:00", "2024-03-01 09:00", "2024-03-01T09:00:00Z", "2024-03-01T10:00:00+01:00", "2024-03-01 04:30:00-0430",
        "2024/3/1 9:00", "2024-03-01T09:00:00.000", " 2024-03-01 09:00:00 UTC ", "1709283600", "1709283600000",
        "1709283600000000", "1709283600000000000", "1709283600.0",
    ],
)  # fmt: skip
def test_one_instant_is_read_however_it_is_written(text):
    assert time(text) == NINE


@pytest.mark.parametrize(
    "text", ["03/04/2024", "03/14/2024 09:00", "20240301", "2024", "12", "2024-02-30", "yesterday", "9:00", "-1"]
)
def test_a_time_that_may_be_another_is_not_read(text):
    assert time(text) is None


@pytest.mark.parametrize("value", [1709283600, 1709283600000, 1709283600000000, 1709283600000000000, 1709283600.0])
def test_epoch_numbers_are_read_in_the_only_unit_that_is_plausible(value):
    assert time(value) == NINE


def test_a_told_unit_format_and_zone_are_kept(tmp_path):
    assert time(12, unit="s") == datetime(1970, 1, 1, 0, 0, 12, tzinfo=UTC)
    assert time("03/01/2024 09:00", format="%m/%d/%Y %H:%M") == NINE
    assert time("1/3/2024", format="%d/%m/%Y") == NINE.replace(hour=0)
    assert time("01.03.2024 10:00 +0100", format="%d.%m.%Y %H:%M %z") == NINE
    assert time("2024-03-01T10:00:00", zone="Europe/Berlin") == NINE
    assert time("2024-03-31T02:30:00", zone="Europe/Berlin") is None  # the clocks skip this hour
    assert time("31/12/2024", format="%m/%d/%Y") is None


def test_naive_datetimes_of_parquet_take_the_told_zone_too():
    assert to_utc(pl.Series([datetime(2024, 7, 1, 9)]), "Europe/London")[0] == datetime(2024, 7, 1, 8, tzinfo=UTC)


@given(st.lists(st.one_of(st.none(), IN_BETWEEN), min_size=1, max_size=8), st.sampled_from(["iso", "s", "us", "space"]))
def test_a_time_reads_the_same_alone_and_among_others(times, form):
    texts = [None if at is None else spelled(at, form) for at in times]
    together = time_of_text(pl.Series(texts, dtype=pl.String), None).to_list()
    alone = [time_of_text(pl.Series([text], dtype=pl.String), None)[0] for text in texts]
    assert together == alone
    wanted = [
        None if at is None else at.replace(tzinfo=UTC, microsecond=0 if form in ("s", "space") else at.microsecond) for at in times
    ]
    assert together == wanted


def spelled(at, form):
    micros = (at - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    return {"iso": at.isoformat(), "s": str(micros // 10**6), "us": str(micros), "space": at.strftime("%Y-%m-%d %H:%M:%S")}[form]


@pytest.mark.parametrize(
    "how", [{}, {"kind": "text", "format": "%Y"}, {"format": "day"}, {"unit": "s", "format": "%Y"}, {"zone": "Mars/Olympus"}]
)
def test_a_column_type_that_contradicts_itself_is_refused(how):
    with pytest.raises(RecipeError):
        ColumnType(**how)
