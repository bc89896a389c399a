from __future__ import annotations

import dagster as dg
import pytest

from sidlake import errors
from sidlake.assets.failures import failing_fast
from sidlake.errors import CapacityError, SidlakeError, StorageError, WarehouseBusy

TRANSIENT = {StorageError, WarehouseBusy}
DATA_ERRORS = sorted(
    {getattr(errors, name) for name in errors.__all__} - TRANSIENT - {SidlakeError}, key=lambda kind: str(kind.__name__)
)


@pytest.mark.parametrize("kind", DATA_ERRORS)
def test_data_errors_become_failures_that_are_not_retried(kind):
    with pytest.raises(dg.Failure) as caught, failing_fast():
        raise kind("why", value=3)
    assert caught.value.allow_retries is False
    assert caught.value.description == f"{kind.__name__}: why"
    assert isinstance(caught.value.__cause__, kind)


def test_a_bug_is_not_retried_and_keeps_its_traceback():
    with pytest.raises(dg.Failure) as caught, failing_fast():
        raise KeyError("oops")
    assert caught.value.allow_retries is False
    assert caught.value.__cause__.__traceback__ is not None


@pytest.mark.parametrize("kind", [*sorted(TRANSIENT, key=str), TimeoutError])
def test_errors_of_storage_reach_the_retry_policy_unchanged(kind):
    with pytest.raises(kind), failing_fast():
        raise kind("the disk is away")


def test_a_failure_shows_the_error_s_values():
    with pytest.raises(dg.Failure) as caught, failing_fast():
        raise CapacityError("full", needed=9, shape=(1, 2), kind=int)
    metadata = caught.value.metadata
    assert metadata["error"].value == "CapacityError"
    assert metadata["details"].value == {"needed": 9, "shape": [1, 2], "kind": "<class 'int'>"}
