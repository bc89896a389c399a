"""Where a method differs from its paper it says so: the table of docs/methods.md, the recipes and docs/comparison.md agree."""

import re
import tomllib
from pathlib import Path

import pytest

from sidlake.tokenizers.registry import tokenizer_config

ROOT = Path(__file__).parent.parent
METHODS = {
    path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "recipes" / "methods").glob("*.toml"))
}
LINES = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES if line.startswith("| ")][1:]
NAMED = {"hidden": "hidden layers", "latent_dim": "latent", "sinkhorn_epsilon": "sinkhorn_epsilon"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[:2]))
def test_a_setting_that_differs_from_the_published_one_is_among_what_the_method_says_deviates(row):
    method, setting, published, _, ours, _ = row
    said = " ".join(METHODS[method]["deviates"]).lower()
    if published != ours:
        assert NAMED.get(setting.strip("`"), setting) in said


@pytest.mark.parametrize("row", [row for row in ROWS if row[1].startswith("`")], ids=lambda row: " ".join(row[:2]))
def test_ours_is_what_the_recipe_uses(row):
    tokenizer = METHODS[row[0]]["tokenizer"]
    config = tokenizer_config(tokenizer["kind"], {"widths": [256, 256, 256], **tokenizer.get("options", {})})[1]
    value = getattr(config, row[1].strip("`"))
    assert row[4] == ("-".join(map(str, value)) if isinstance(value, tuple) else str(value))


def test_uniqueness_in_the_table_is_the_recipes():
    stated = {row[0]: re.sub("`", "", row[4]) for row in ROWS if row[1] == "collisions"}
    assert stated == {method: METHODS[method]["tokenizer"]["uniqueness"] for method in stated}


def test_the_comparison_says_of_each_method_what_its_file_says():
    page = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8").splitlines()
    said = [f"- **{m['name']}** ({m['source']}): {' '.join(m['deviates'])}" for m in METHODS.values() if m.get("deviates")]
    assert [line for line in said if line not in page] == []
