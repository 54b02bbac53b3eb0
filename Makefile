# `make demo` and `make test` each do everything on a fresh clone; the rest is for development.
VENV   := .venv
PYTHON ?= python3
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: demo test table2 check format bench
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed           ## install, then the whole pipeline on the demo set
	dvc repro

test: demo                         ## install, the whole pipeline, then all tests
	pytest

table2: $(VENV)/.installed         ## all five rows of Table 2 on the demo set, three seeds each: half an hour on two cores
	dvc exp run -S 'seeds=[0,1,2]' -S 'variants=[initial,itr,itr_intra,itr_inter,iterative]'

check: $(VENV)/.installed-dev      ## format, lint, types, fast tests
	ruff format --check .
	ruff check .
	mypy
	pytest -m "not slow"

format: $(VENV)/.installed-dev     ## put the code into the project's format
	ruff check --fix .
	ruff format .

bench: $(VENV)/.installed          ## every benchmark; tables on the terminal, JSON under benchmarks/results/
	for file in benchmarks/[a-z]*.py; do python $$file || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet -e '.[test]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet -e '.[dev]'
	touch $@
