"""README and pages are run: their SQL against a fresh warehouse and their Python; the table of schemas is the contracts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sidlake.cli.app import app
from sidlake.pipelines.steps import STEPS
from sidlake.warehouse.catalog import query
from sidlake.warehouse.contracts import CONTRACTS, PARTITIONED_BY, semantic_ids_schema
from sidlake.warehouse.tables import Warehouse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs"
TABLES, COMMANDS, IN_PYTHON, FEATURES, OWN, MIGRATING = (
    (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for name in ("tables", "commands", "python", "sid-features", "own-catalogue", "migrating")
)
SQL = re.findall(r"```sql\n(.*?)```", README + COMMANDS, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README + IN_PYTHON + FEATURES + MIGRATING, re.DOTALL)
OF_TWO_GENERATIONS = re.findall(r"```sql\n(.*?)```", MIGRATING, re.DOTALL)


def schema_table() -> str:
    """Return the table of schemas, from the contracts."""
    lines = ["| table | column | type | what |", "|---|---|---|---|"]
    for table, schema in sorted((CONTRACTS | {"semantic_ids": semantic_ids_schema(3)}).items()):
        for field in schema:
            comment = field.metadata[b"comment"].decode()
            key = " (partition)" if field.name in PARTITIONED_BY.get(table, []) else ""
            kind = str(field.type).replace("item: ", "").replace("element: ", "")
            lines.append(f"| {table} | {field.name}{key} | `{kind}`{'' if field.nullable else ' not null'} | {comment} |")
    return "\n".join(lines)


@pytest.mark.parametrize("sql", SQL, ids=[sql.splitlines()[0] for sql in SQL])
def test_the_example_queries_run_and_find_something(shop, sql):
    assert query(Warehouse(shop.warehouse), sql).num_rows > 0


@pytest.mark.parametrize("sql", OF_TWO_GENERATIONS, ids=[sql.splitlines()[0] for sql in OF_TWO_GENERATIONS])
def test_queries_on_what_a_retrain_changed_run_where_nothing_has_changed_yet(shop, sql):
    assert query(Warehouse(shop.warehouse), sql).num_rows == 0


def test_the_first_query_says_true(shop):
    assert query(Warehouse(shop.warehouse), SQL[0]).to_pylist() == [{"all_unique": True}]


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_the_python_examples_run(shop, code, tmp_path):
    (tmp_path / "lake").symlink_to(shop.warehouse)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_the_table_of_schemas_is_the_contracts():
    shown = TABLES.split("<!-- schemas:start -->")[1].split("<!-- schemas:end -->")[0].strip()
    assert shown == schema_table(), "write it anew: python tests/test_readme.py"


def test_the_picture_of_the_steps_is_the_table_of_steps():
    shown = README.split("<!-- steps:start -->")[1].split("<!-- steps:end -->")[0].strip()
    assert shown == picture(), "write it anew: python tests/test_readme.py"


def test_every_target_of_the_makefile_is_a_line_of_the_readme():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert [t for t in targets[1].split() if f"| `make {t}` |" not in README] == []


def test_every_local_link_leads_somewhere():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    links = [(p, link) for p in pages for link in re.findall(r"\]\(([^)#]+)\)", p.read_text()) if "://" not in link]
    assert [f"{p.name}: {link}" for p, link in links if not (p.parent / link).exists()] == []


def test_every_test_and_benchmark_that_a_page_names_is_there():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = [(p, file) for p in pages for file in re.findall(r"\b(?:tests|benchmarks)/[a-z0-9_/]+\.py", p.read_text())]
    assert [f"{p.name}: {file}" for p, file in named if not (ROOT / file).is_file()] == []


def test_the_ci_script_runs_the_readmes_test_command():
    assert "make lint test" in (ROOT / ".ci" / "run").read_text()
    assert "make lint test   # the tests" in README
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_every_command_is_on_the_page_of_commands():
    names = {command.name or command.callback.__name__ for command in app.registered_commands if not command.hidden}
    names |= {group.name for group in app.registered_groups}
    assert sorted(name for name in names if not re.search(rf"sidlake {name}\b", COMMANDS + README + OWN)) == []


def picture() -> str:
    """Return the steps as a Mermaid flow chart: an arrow from each step to those that read what it writes."""
    writer = {product: step.name for step in STEPS.values() for product in step.writes}
    before = {step.name: {writer[product] for product in step.reads} for step in STEPS.values()}
    all_before: dict[str, set[str]] = {}
    for name, direct in before.items():
        all_before[name] = direct.union(*(all_before[one] for one in direct))
    lines = ["```mermaid", "flowchart LR"]
    lines += [f"  {name}[{name}<br/><small>{', '.join(step.writes)}</small>]" for name, step in STEPS.items()]
    for name, direct in before.items():
        lines += [f"  {one} --> {name}" for one in sorted(direct) if not any(one in all_before[other] for other in direct)]
    learned = ",".join(name for name, step in STEPS.items() if step.jobs == {"retrain"})
    return "\n".join([*lines, f"  class {learned} learned", "  classDef learned stroke-dasharray: 4", "```"])


def written(text: str, name: str, block: str) -> str:
    """Return `text` with `block` between the marks called `name`."""
    before, rest = text.split(f"<!-- {name}:start -->")
    return f"{before}<!-- {name}:start -->\n{block}\n<!-- {name}:end -->{rest.split(f'<!-- {name}:end -->')[1]}"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(written(README, "steps", picture()), encoding="utf-8")
    (DOCS / "tables.md").write_text(written(TABLES, "schemas", schema_table()), encoding="utf-8")
