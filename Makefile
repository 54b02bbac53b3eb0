# `make demo` and `make test` each do everything on a fresh clone; the rest is for development.
VENV   := .venv
PYTHON ?= python3
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# One process of tests for each core. A file stays in one process, since its tests share what is made once.
PYTEST := pytest -n auto --dist loadfile --no-loadscope-reorder --durations=25

.PHONY: install demo test tables check format bench docs
.DEFAULT_GOAL := demo

install: $(VENV)/.installed        ## virtual environment and packages, nothing else

demo: $(VENV)/.installed           ## install, then the whole pipeline on the demo set
	dvc repro
	@echo 'The report: results/demo/report/index.html, to open in a browser. The command soundspot: . $(VENV)/bin/activate'

test: demo                         ## install, the whole pipeline, then all tests
	$(PYTEST)

# All rows of Tables 1 and 2. One initialization serves them all; a GPU is used where there is one, and on a CPU the seeds
# train side by side.
TABLE_ROWS := initial,itr,itr_intra,itr_inter,iterative,attention,dmc,dsol,mssl,mssl_stage1,mssl_stage1_unlabeled
TABLE_ROWS := $(TABLE_ROWS),mssl_stage1_eq2,mssl_stage1_unlabeled_eq2,mssl_stage1_eq2_eq1,mssl_stage1_unlabeled_eq2_eq1

tables: $(VENV)/.installed         ## the paper's tables on the demo set: every system, every row, three seeds each
	SOUNDSPOT_SEEDS_AT_ONCE=$${SOUNDSPOT_SEEDS_AT_ONCE:-3} dvc exp run -S 'seeds=[0,1,2]' -S 'variants=[$(TABLE_ROWS)]'

check: $(VENV)/.installed-dev      ## format, lint, types, fast tests
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	$(PYTEST) -m "not slow"

format: $(VENV)/.installed-dev     ## put the code into the project's format
	ruff check --fix .
	ruff format .

bench: $(VENV)/.installed          ## every benchmark; tables on the terminal, JSON under benchmarks/results/
	failed=0; for file in benchmarks/[a-z]*.py; do python $$file || failed=1; done; exit $$failed

docs: $(VENV)/.installed           ## this documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet -e '.[test]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet -e '.[dev]'
	touch $@
