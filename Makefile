# Targets: setup demo test lint audit docs dev report clean. Each is one line in the README.
PYTHON ?= python3
BIN := .venv/bin
export DAGSTER_HOME := $(CURDIR)/dagster_home
export SIDLAKE_WAREHOUSE ?= $(CURDIR)/lake
export SIDLAKE_RECIPE ?= $(CURDIR)/recipes/online_retail.toml
export TOKENIZERS_PARALLELISM := false

.PHONY: setup demo test lint audit docs dev report clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sidlake needs Python >= 3.11; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || { echo "Creating .venv"; $(PYTHON) -m venv .venv; }
	@echo "Installing into .venv (about 3 GB, some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m compileall -qq -j 2 -x '/tests/|/transformers/models/' .venv/lib || true  # pip does it on one core, and all; templates fail
	@touch $@

demo: setup
	@$(BIN)/python -m sidlake.assets.launch retrain

# Analysts may have another DuckDB than the one that wrote the catalogue: the tests open it with this one too.
.venv/duckdb-1.x: .venv/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ duckdb==1.5.5

# Feast pins other versions of half of what sidlake needs: it has an environment of its own, in which the tests start it.
.venv/feast: .venv/.installed
	@$(BIN)/python -m venv $@
	@$@/bin/python -m pip install --quiet --disable-pip-version-check --no-compile feast==0.67.0

# Three workers for two cores: tests wait for daemons, servers and disks a fifth of the time.
test: setup .venv/duckdb-1.x .venv/feast
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

lint: setup .typing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy & types=$$!; \
	$(BIN)/python -m pip --disable-pip-version-check check && \
	git ls-files -z -- '*.py' '*.toml' '*.md' '*.yaml' '*.txt' Makefile .ci | xargs -0 -P 2 -n 120 $(BIN)/detect-secrets-hook --baseline .secrets.baseline; \
	others=$$?; wait $$types && exit $$others

# Known vulnerabilities of what is pinned. Asks pypi.org's database, so it is no part of lint, which must work offline; where that cannot be
# asked it fails (--strict).
audit: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .venv/audit pip-audit==2.10.1
	@PYTHONPATH=.venv/audit $(BIN)/python -m pip_audit --strict --requirement constraints.txt --no-deps --disable-pip

# mypy cannot follow the editable install's finder: it reads the folders through links named like the packages.
.typing: pyproject.toml $(wildcard sidlake/*.py)
	@rm -rf $@ && mkdir -p $@/sidlake
	@for marker in */py.typed; do folder=$${marker%/*}; test $$folder = sidlake || ln -sfn ../../$$folder $@/sidlake/$$folder; done
	@for module in sidlake/*.py; do ln -sfn ../../$$module $@/$$module; done

docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

dev: setup
	@$(BIN)/sidlake ui

report: setup
	@$(BIN)/sidlake status
	@$(BIN)/sidlake report

clean:
	rm -rf lake .venv .typing .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find dagster_home -mindepth 1 ! -name dagster.yaml -delete
