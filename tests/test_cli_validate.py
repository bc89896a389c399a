"""`sidlake validate`: what an ingest would keep and refuse, told before there is a warehouse."""

import json

import pytest
from source_files_sample import recipe_in, write

from sidlake.cli import app as cli

NAMES = [f"cup number {at}" for at in range(12)]


@pytest.fixture
def validate(tmp_path, monkeypatch, capsys):
    """The command on the sample's recipe: returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["sidlake", "validate", "recipe.toml", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return run


def items(path, texts):
    write(path, [{"id": f"{at:02d}", "name": text} for at, text in enumerate(texts)])


def test_a_sound_recipe_tells_rows_items_and_cost_and_leaves_no_trace(validate, tmp_path):
    recipe_in(tmp_path)
    items(tmp_path / "items.csv", [*NAMES, NAMES[0]])
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = validate("--json")
    found = json.loads(out)
    assert (code, found["failures"]) == (0, [])
    assert found["rows"]["items"] == {"read": 13, "refused": 0, "made": 13}
    assert (found["items"][0]["item_id"], found["items"][0]["text"]) == ("00", NAMES[0])
    assert (found["cost"]["texts"], found["cost"]["text_vector_bytes"]) == (12, 12 * 384 * 4)
    assert found["columns"] == {"items": {"id": "text", "name": "text"}}
    assert sorted(tmp_path.rglob("*")) == before


def test_refused_rows_are_told_by_rule_also_where_the_run_would_fail_for_them(validate, tmp_path):
    recipe_in(tmp_path, share=0.1)
    items(tmp_path / "items.csv", [*NAMES, "", "", ""])
    code, out, _ = validate("--json")
    found = json.loads(out)
    assert (code, found["rows"]["items"]["refused"]) == (1, 3)
    assert [(row["rule"], row["rows"]) for row in found["rejected"]] == [("empty_text", 3)]
    assert "20.0% of 15 source rows rejected, allowed 10.0%" in found["failures"][0]
    assert "an ingest would fail: items: 20.0%" in validate()[2]


def test_a_missing_source_is_a_failure_that_names_it(validate, tmp_path):
    recipe_in(tmp_path)
    code, _, err = validate()
    assert (code, "no such file" in err) == (1, True)


def test_people_read_the_cost_in_a_sentence(validate, tmp_path):
    recipe_in(tmp_path)
    items(tmp_path / "items.csv", NAMES)
    assert "a run will embed 12 texts (18,432 bytes of vectors) and 0 pictures" in validate()[1]
