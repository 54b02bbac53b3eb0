# `make demo` and `make test` do everything on a fresh clone; the other targets are for development.
VENV   := .venv
PYTHON ?= python3
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# One test process per core. The tests of a file run in the same process, because they share fixtures.
PYTEST := pytest -n auto --dist loadfile --no-loadscope-reorder --durations=25

.PHONY: install demo test tables real folders-given check format bench docs docs-images
.DEFAULT_GOAL := demo

install: $(VENV)/.installed        ## virtual environment and packages only

demo: $(VENV)/.installed           ## install, then the whole pipeline on the demo dataset
	dvc repro
	@echo 'Open the report in a browser: results/demo/report/index.html. To use the command soundspot: . $(VENV)/bin/activate'

test: demo                         ## install, the whole pipeline, then all tests
	$(PYTEST)

# All rows of Tables 1 and 2. They share one initialization. A GPU is used if present; on a CPU, the seeds train in parallel.
TABLE_ROWS := untouched,initial,initial_matched,itr,itr_intra,itr_inter,iterative,attention,dmc,dsol,mssl,mssl_stage1,mssl_stage1_unlabeled
TABLE_ROWS := $(TABLE_ROWS),mssl_stage1_eq2,mssl_stage1_unlabeled_eq2,mssl_stage1_eq2_eq1,mssl_stage1_unlabeled_eq2_eq1

tables: $(VENV)/.installed         ## the paper's tables on the demo dataset: all rows, five seeds each
	SOUNDSPOT_SEEDS_AT_ONCE=$${SOUNDSPOT_SEEDS_AT_ONCE:-3} dvc exp run -S 'seeds=[0,1,2,3,4]' -S 'variants=[$(TABLE_ROWS)]'

# Mosaics of real photographs and recordings. A test set of its own: TEST_PHOTOS=DIR TEST_SOUNDS=DIR. TABLES=1: all rows of the tables;
# those of MSSL learn from the classes of the folders.
REAL_ROWS := $(if $(TABLES),$(TABLE_ROWS),untouched,initial,initial_matched,itr,itr_intra,itr_inter,iterative)
# Not ?=: some shells export NAME.
NAME := real

real: folders-given $(VENV)/.installed   ## PHOTOS=DIR SOUNDS=DIR [TABLES=1]: from the folders to the report, five seeds each
	soundspot import mosaic --name '$(NAME)' --preset real --force --photos '$(PHOTOS)' --sounds '$(SOUNDS)' \
	    $(if $(TEST_PHOTOS),--test-photos '$(TEST_PHOTOS)')$(if $(TEST_SOUNDS), --test-sounds '$(TEST_SOUNDS)')
	SOUNDSPOT_SEEDS_AT_ONCE=$${SOUNDSPOT_SEEDS_AT_ONCE:-3} dvc exp run -S 'dataset=$(NAME)' -S 'seeds=[0,1,2,3,4]' -S 'variants=[$(REAL_ROWS)]'
	@echo 'Open the report in a browser: results/$(NAME)/report/index.html'

folders-given:
	$(if $(and $(PHOTOS),$(SOUNDS)),@:,$(error pass the folders of photographs and recordings by class: make real PHOTOS=DIR SOUNDS=DIR [NAME=real]))

check: $(VENV)/.installed-dev      ## check format, lint and types, and run the fast tests
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	$(PYTEST) -m "not slow"

format: $(VENV)/.installed-dev     ## format the code
	ruff check --fix .
	ruff format .

# The other files in benchmarks/ train models, or make pictures and tables of the documentation.
BENCHMARKS := extraction extraction_memory scale features reading training ranks evaluation scoring localization

bench: $(VENV)/.installed          ## speed and memory; tables on the terminal, JSON in benchmarks/results/
	failed=0; for name in $(BENCHMARKS); do python benchmarks/$$name.py || failed=1; done; exit $$failed

docs: $(VENV)/.installed           ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

docs-images: demo                  ## the pictures of README and documentation, from the results of the demo
	python benchmarks/demo_animation.py
	python benchmarks/docs_pictures.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet -e '.[test]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet -e '.[dev]'
	touch $@
