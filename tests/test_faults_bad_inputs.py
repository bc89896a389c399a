"""Bad inputs: every row of the table ends in the error it names, with a message a user can act on; the docs show the table."""

import pytest
from bad_inputs import DOCS, TABLE, outcome, page


@pytest.mark.parametrize("case", TABLE, ids=[f"{case.area}: {case.name}" for case in TABLE])
def test_a_bad_input_ends_in_its_named_error(case, tmp_path):
    error, message = outcome(case, tmp_path)
    assert (error, case.says in message) == (case.error, True), f"{error}: {message}"


def test_the_table_has_sixty_different_cases_of_every_kind():
    assert len({(case.area, case.name) for case in TABLE}) == len(TABLE) >= 60
    assert {case.area for case in TABLE} == {"sources", "recipes", "command line", "stored state"}


def test_the_docs_show_the_table():
    assert DOCS.read_text(encoding="utf-8") == page(), "write it anew: python tests/bad_inputs.py"
