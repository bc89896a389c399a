"""Recipes: TOML to frozen dataclasses, every mistake named."""

import dataclasses
import re
from pathlib import Path

import pytest

from sidlake.encoders.fusion.config import FuseConfig, FusionConfig
from sidlake.errors import RecipeError
from sidlake.pipelines.recipe import Recipe, digest_of, load_recipe

ROOT = Path(__file__).parent.parent
MINIMAL = """
name = "shop"
[sources.rows]
path = "rows.parquet"
[items]
source = "rows"
item_id = "id"
title = { column = "name" }
"""


def recipe_of(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return load_recipe(path)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_in_the_repository_loads(path):
    assert load_recipe(path).name == path.stem


def test_the_fusion_of_a_recipe_is_concat_and_another_kind_is_told_with_its_settings(tmp_path):
    assert recipe_of(tmp_path, MINIMAL).encoders.fusion_config() == FusionConfig(weights=(("text", 1.0, 64),))
    told = recipe_of(tmp_path, MINIMAL + "[encoders]\nfuse = { kind = 'pca', dim = 32, unit = true }").encoders.fusion_config()
    assert told.fuse == FuseConfig(kind="pca", dim=32, unit=True)


def test_paths_start_at_the_recipes_folder(tmp_path):
    assert recipe_of(tmp_path, MINIMAL).source_path("rows") == tmp_path / "rows.parquet"


def test_the_digest_does_not_depend_on_where_the_recipe_lies(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    first, second = recipe_of(tmp_path, MINIMAL), recipe_of(tmp_path / "elsewhere", MINIMAL)
    assert digest_of(first.items, first.sources) == digest_of(second.items, second.sources)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINIMAL + 'titel = "x"', "unknown key items.titel; allowed here: source, item_id"),
        ('nane = "x"\n' + MINIMAL, "unknown key nane"),
        ("folder = '/'\n" + MINIMAL, "unknown key folder"),
        (MINIMAL.replace('item_id = "id"', ""), "missing key items.item_id"),
        (MINIMAL.replace('item_id = "id"', "item_id = 3"), "items.item_id must be str, got 3"),
        (MINIMAL.replace('"rows"\nitem_id', '"lines"\nitem_id'), r"sources \['lines'\] are not among \['rows'\]"),
        (MINIMAL + "max_rejected_share = 1.5", "items.max_rejected_share must be between 0 and 1, got 1.5"),
        (MINIMAL.replace('column = "name"', 'column = "name", pick = "latest"'), "needs order_by"),
        (MINIMAL.replace('column = "name"', 'column = "name", pick = "newest"'), r"items.title.pick must be one of \['only'"),
        (MINIMAL + "[tokenizer]\nwidths = [8, true]", r"tokenizer.widths\[1\] must be int, got True"),
        (MINIMAL + "[tokenizer]\nkind = 'product'\nwarm_start = true", "product cannot start .* beam_kmeans, residual_kmeans can"),
        (MINIMAL + "[[gates]]\nmetric = 'raw_leaf_gini'", "give minimum, maximum or both"),
        (MINIMAL + "[encoders.fusion.image]\nweight = 1.0", r"modalities \['image'\] must be a non-empty subset of \['text'\]"),
        (MINIMAL + "[encoders]\nfuse = { kind = 'glue' }", r"encoders.fuse.kind must be one of \['concat', 'plain'"),
        (MINIMAL + "[encoders]\nfuse = { knd = 'pca' }", "unknown key encoders.fuse.knd"),
        (MINIMAL + "[encoders]\nfuse = { kind = 'pca', target = 'text' }", "fuse.target is no setting of kind 'pca'"),
        (MINIMAL + "[encoders]\nfuse = { kind = 'align' }", "encoders.fusion: kind 'align' relates modalities"),
        (MINIMAL + "[encoders]\nfuse = { kind = 'pca', dim = 65 }", "fuse.dim of kind 'pca' must be at most 64"),
        (MINIMAL + "[encoders]\nfuse = { kind = 'contrastive' }", r"need an \[interactions\] section"),
        (MINIMAL + "[trainer]\nkind = 'tiger'\nnum_steps = 5", r"need an \[interactions\] section"),
        (MINIMAL + "[trainer]\nkind = 'bert'", r"trainer.kind must be one of \['decoder', 'sasrec', 'tiger'\], got 'bert'"),
        (MINIMAL + "[trainer]\nnum_steps = 5", "unknown key trainer.num_steps; allowed here: kind, inputs"),
        (MINIMAL + "[trainer]\nkind = 'tiger'\nheads = ['item']", "unknown key trainer.heads; allowed here: kind, d_model"),
        (MINIMAL + "[trainer]\ninputs = ['fused']", "the depth head spells codes"),
        (MINIMAL + "[trainer]\ninputs = ['titles']", r"trainer.inputs\[0\] must be one of \['codes', 'fused', 'item'\]"),
        (MINIMAL + "[split]\nholdout_days = 0", "must be >= 1"),
        (MINIMAL + "[[sources.rows.rules]]\nname = 'r'\ncolumn = 'c'", "0 predicates given, needed exactly 1"),
        (MINIMAL + "[encoders.text]\nmodel = ''", "model is empty"),
        ("name = ", "not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_recipe_is_named(tmp_path, text, says):
    with pytest.raises(RecipeError, match=says) as caught:
        recipe_of(tmp_path, text)
    assert "recipe.toml" in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere\.toml: No such file"):
        load_recipe(tmp_path / "nowhere.toml")


def fields_below(kind):
    """Yield (dataclass, field name) of `kind` and of every dataclass of sidlake it holds."""
    seen, waiting = set(), [kind]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for field in dataclasses.fields(current):
            yield current, field.name
        hints = __import__("typing").get_type_hints(current)
        text = " ".join(str(hint) for hint in hints.values())
        for module, name in re.findall(r"(sidlake\.[a-z_.]+)\.([A-Z]\w+)", text):
            found = getattr(__import__(module, fromlist=[name]), name)
            if dataclasses.is_dataclass(found):
                waiting.append(found)


def test_every_field_of_a_recipe_is_read_somewhere():
    folders = ("pipelines", "encoders", "tokenizers", "quality", "generative", "assets")
    code = "\n".join(path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py"))
    unread = [f"{kind.__name__}.{name}" for kind, name in fields_below(Recipe) if not re.search(rf"\.{name}\b", code)]
    assert unread == []
