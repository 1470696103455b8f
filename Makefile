# Everything a person needs: a demonstration, the tests, the documentation. Each makes its own virtual environment once.
#
#   make demo     an audit on real data, and its report
#   make test     format, lint, types, tests
#   make docs     the documentation as web pages, in site/
#   make dist     the source archive and a wheel for every system, in dist/
#   make clean    remove what these made, but not runs/
#
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
WORKERS ?= 2
# The demonstration runs the best-known method over its whole grid, and all controls.
DEMO ?= gradient_ascent
VENV := .venv
BUILD := pyproject.toml constraints.txt hatch_build.py $(wildcard src/expunge/ensembles/*.[ch])
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test format lint types pytest docs dist clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.installed
	$(BIN)/expunge audit digits --forget random:70 --forget cluster:70 --methods $(DEMO) --out runs/demo --resume
	@echo "The usual methods: $(BIN)/expunge audit digits --forget random:70 --forget cluster:70 --out runs/digits"

test: lint types pytest

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# One thread a worker: several workers that each take every core get in each other's way.
pytest: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

# The wheel is built from the archive, so whatever is missing there is missing at once. Without the compiled kernels it
# serves all systems; those of Linux with them are built by cibuildwheel (see CONTRIBUTING.md).
dist: $(VENV)/.created
	$(INSTALL) build
	EXPUNGE_COMPILED=0 $(BIN)/python -m build --outdir dist .

# The stamps make a second call quick; they are made again when the dependencies change.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "expunge needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Name another one, such as: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(BUILD) | $(VENV)/.created
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(BUILD) | $(VENV)/.created
	$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: $(BUILD) | $(VENV)/.created
	$(INSTALL) --editable '.[docs]'
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f src/expunge/ensembles/_direct.so src/expunge/ensembles/_direct.part
