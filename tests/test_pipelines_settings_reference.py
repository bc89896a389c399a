"""The reference of recipes is complete and up to date, and its schema takes what the loader takes.

``python tests/test_pipelines_settings_reference.py`` writes docs/recipe.md and docs/recipe.schema.json anew.
"""

import json
import re
import tomllib
from dataclasses import asdict, fields
from functools import reduce
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from typer.testing import CliRunner

from sidlake.cli import app as cli
from sidlake.errors import NotFoundError, RecipeError
from sidlake.pipelines.generation import _frozen_of
from sidlake.pipelines.recipe import load_recipe, plain
from sidlake.pipelines.settings.encoders import MODALITIES
from sidlake.pipelines.settings.methods import shipped_methods
from sidlake.pipelines.settings.reference import explained, keys_of_recipes, sections, sentences
from sidlake.pipelines.settings.reference_page import reference_page
from sidlake.pipelines.settings.schema import recipe_schema

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
MINIMAL = {"name": "shop", "sources": {"rows": {"path": "a.csv"}}, "items": {"source": "rows", "item_id": "id", "title": "name"}}
RULE = {"name": "r", "column": "c", "is_null": True}
TRAINED = MINIMAL | {"interactions": {"source": "rows", "user_id": "u", "item_id": "i", "ts": "t"}}


def schema_text():
    return json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"


def held_by(value, path=""):
    """Return what a recipe holds by key, as the reference writes keys; entries of a list are one key."""
    if isinstance(value, dict) and value:
        inner = [held_by(entry, f"{path}.{name}" if path else name) for name, entry in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        inner = [held_by(entry, f"{path}[]") for entry in value]
    else:
        return {re.sub(r"\b(sources|types|fusion|precomputed)\.[^.]+", r"\1.NAME", path): value}
    return {name: entry for one in inner for name, entry in one.items()}


def loaded(path):
    values = plain(asdict(load_recipe(path)))
    return {name: value for name, value in values.items() if name != "folder"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_value_that_a_recipe_holds_has_a_key_in_the_reference(path):
    held = set(held_by(loaded(path)))
    assert len(held) > 80
    assert held - {key.path for key in keys_of_recipes()} == set()


def test_every_key_of_the_shipped_methods_is_in_the_reference():
    held = {key for path in shipped_methods().values() for key in held_by(tomllib.loads(path.read_text(encoding="utf-8")))}
    assert held - {key.path for key in keys_of_recipes()} == {"encoders.fusion.NAME"}  # a modality with the defaults: its table


def test_every_key_has_a_sentence():
    assert [key.path for key in keys_of_recipes() if len(key.says.split()) < 2 or not key.says.endswith((".", "`"))] == []


def test_no_docstring_speaks_of_a_field_that_is_not_there():
    wrong = {section.kind.__name__: set(sentences(section.kind)) - {f.name for f in fields(section.kind)} for section in sections()}
    assert {name: extra for name, extra in wrong.items() if extra} == {}


def test_the_page_and_the_schema_are_up_to_date():
    why = "write them anew: python tests/test_pipelines_settings_reference.py"
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == reference_page(), why
    assert (ROOT / "docs" / "recipe.schema.json").read_text(encoding="utf-8") == schema_text(), why


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_a_refresh_may_not_change_is_what_the_reference_says(path):
    recipe = loaded(path)
    fitted = set(held_by(_frozen_of(recipe)))
    said = {key.path for key in keys_of_recipes() if key.only_by_retrain}
    of_encoder_ids = {name for name in said if name.startswith(("encoders.text.", "encoders.image."))}
    given = {name for name, value in held_by(recipe).items() if value not in (None, {})}
    assert len(fitted) > 20
    assert fitted == (said - of_encoder_ids) & given


def test_of_every_encoder_something_may_be_changed_by_a_retrain_alone():
    said = {key.path.split(".")[1] for key in keys_of_recipes() if key.only_by_retrain and key.path.startswith("encoders.")}
    assert set(MODALITIES) - said == set()


@pytest.mark.parametrize("section", ["tokenizer", "encoders.behaviour", "encoders.fuse"])
def test_a_key_that_an_older_release_does_not_know_has_its_default(section):
    recipe = loaded(ROOT / "recipes" / "online_retail.toml")
    older = json.loads(json.dumps(recipe))
    within = reduce(lambda table, name: table[name], section.split("."), older)
    del within["seed"]
    assert _frozen_of(older) == _frozen_of(recipe)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_schema_takes_every_shipped_recipe_which_names_it_for_editors(path):
    text = path.read_text(encoding="utf-8")
    named = re.match(r"#:schema (\S+)", text)[1]
    schema = json.loads((path.parent / named).read_text(encoding="utf-8"))
    Draft7Validator.check_schema(schema)
    assert [error.message for error in Draft7Validator(schema).iter_errors(tomllib.loads(text))] == []


@pytest.mark.parametrize("path", shipped_methods().values(), ids=lambda path: path.stem)
def test_the_schema_takes_the_encoders_and_tokenizers_of_the_shipped_methods(path):
    method = tomllib.loads(path.read_text(encoding="utf-8"))
    recipe = MINIMAL | {name: method[name] for name in ("encoders", "tokenizer") if name in method}
    assert [error.message for error in Draft7Validator(recipe_schema()).iter_errors(recipe)] == []


REFUSED = {
    "a misspelt key": MINIMAL | {"splitt": {}},
    "a misspelt key of a table": MINIMAL | {"split": {"holdout": 3}},
    "a folder": MINIMAL | {"folder": "/"},
    "no title": MINIMAL | {"items": {"source": "rows", "item_id": "id"}},
    "a number for a text": MINIMAL | {"name": 3},
    "a truth for a number": MINIMAL | {"tokenizer": {"widths": [8, True]}},
    "a kind that is not there": MINIMAL | {"encoders": {"fuse": {"kind": "glue"}}},
    "a rule with an unknown key": MINIMAL
    | {"sources": {"rows": {"path": "a.csv", "rules": [{"name": "r", "column": "c", "like": "x"}]}}},
    "a type that is none": MINIMAL | {"sources": {"rows": {"path": "a.csv", "types": {"id": "date"}}}},
    "another trainer's key": TRAINED | {"trainer": {"kind": "tiger", "heads": ["item"]}},
    "the other trainer's key without its kind": TRAINED | {"trainer": {"num_steps": 5}},
}


@pytest.mark.parametrize("values", REFUSED.values(), ids=REFUSED)
def test_what_the_schema_refuses_the_loader_refuses_too(values, tmp_path):
    assert not Draft7Validator(recipe_schema()).is_valid(values)
    (tmp_path / "recipe.toml").write_text(toml(values))
    with pytest.raises(RecipeError):
        load_recipe(tmp_path / "recipe.toml")


TAKEN = {
    "nothing more": MINIMAL,
    "a title as a table": MINIMAL | {"items": MINIMAL["items"] | {"title": {"column": "name"}}},
    "a type as a word": MINIMAL | {"sources": {"rows": {"path": "a.csv", "types": {"id": "text", "at": {"unit": "s"}}}}},
    "a whole number where a fraction may stand": MINIMAL | {"items": MINIMAL["items"] | {"max_rejected_share": 1}},
    "a trainer by its kind": TRAINED | {"trainer": {"kind": "tiger", "num_steps": 5}},
    "a trainer without a kind": TRAINED | {"trainer": {"max_epochs": 5}},
    "a kind's own option": MINIMAL | {"tokenizer": {"kind": "beam_kmeans", "options": {"beam": 3}}},
}


@pytest.mark.parametrize("values", TAKEN.values(), ids=TAKEN)
def test_what_the_schema_takes_the_loader_takes_too(values, tmp_path):
    assert [error.message for error in Draft7Validator(recipe_schema()).iter_errors(values)] == []
    (tmp_path / "recipe.toml").write_text(toml(values))
    assert load_recipe(tmp_path / "recipe.toml").name == "shop"


def toml(value):
    """Return a table as TOML, its tables inline."""
    return "\n".join(f"{name} = {_inline(entry)}" for name, entry in value.items())


def _inline(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_inline(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(entry) for entry in value) + "]"
    return json.dumps(value)


def test_a_key_is_explained_by_its_place_or_by_its_name_alone():
    (widths,) = explained("tokenizer.widths")
    assert explained("widths") == [widths]
    assert (widths.type, widths.default, widths.only_by_retrain) == ("list of: whole number", "none", True)
    assert widths.says.startswith("Codes per level")
    assert [key.path for key in explained("sources.sales.rules[2].column")] == ["sources.NAME.rules[].column"]
    assert [key.path for key in explained("items.title")] == ["items.title", "items.title.column", "items.title.pick"]
    assert {key.of for key in explained("trainer.d_model")} == {"trainer.kind decoder or sasrec", "trainer.kind tiger"}


def test_a_key_that_is_not_there_is_refused_with_the_nearest_names():
    with pytest.raises(NotFoundError, match=r"no key 'tokenizer.widhts'; near are tokenizer.widths"):
        explained("tokenizer.widhts")


def test_the_command_says_what_a_key_means_and_lists_the_tables_without_one():
    told = CliRunner().invoke(cli.app, ["explain", "tokenizer.align"]).stdout
    assert told.startswith("tokenizer.align  (true or false; default: true)\n    Name the codes of a new generation")
    tables = CliRunner().invoke(cli.app, ["explain"]).stdout.splitlines()
    assert "split: kind, holdout_days, max_history, max_sessions, pair_window" in tables
    assert len(tables) == len(sections())


def test_the_command_prints_keys_and_the_schema_as_json():
    (key,) = json.loads(CliRunner().invoke(cli.app, ["explain", "widths", "--json"]).stdout)
    assert key["path"] == "tokenizer.widths"
    assert json.loads(CliRunner().invoke(cli.app, ["explain", "--schema"]).stdout) == recipe_schema()


if __name__ == "__main__":
    (ROOT / "docs" / "recipe.md").write_text(reference_page(), encoding="utf-8")
    (ROOT / "docs" / "recipe.schema.json").write_text(schema_text(), encoding="utf-8")
