# On a fresh machine with Python 3.10 to 3.13, gcc and make:
#
#   make train      sets up .venv and trains the default parser on the embedded data (fixtures/)
#   make test       sets up .venv and runs the tests
#   make install    only sets up .venv
#   make docs       builds the pages of docs/ into build/docs
#
# PYTHON names the interpreter that .venv is made with, by default the first of 3.11, 3.12, 3.13 and 3.10 that is there.

SHELL := bash
VENV := .venv
INSTALLED := $(VENV)/.installed
CONFIG ?= training_configs/syntactic_then_semantic/spigot.jsonnet
RUN ?= runs/spigot

.PHONY: install train test lint format fixtures docs

install: $(INSTALLED)

# Written last, so that an interrupted set-up is done again and a finished one is not.
$(INSTALLED): setup.cfg pyproject.toml requirements/constraints.txt scripts/setup.sh $(wildcard scripts/*wheel*.py scripts/build_backend.py)
	PYTHON="$(PYTHON)" scripts/setup.sh $(VENV)
	@touch $@

train: $(INSTALLED)
	$(VENV)/bin/allennlp train $(CONFIG) --include-package spigot_allennlp --serialization-dir $(RUN) --force
	$(VENV)/bin/allennlp evaluate $(RUN)/model.tar.gz fixtures/graphs/test.conllu --include-package spigot_allennlp \
	    --output-file $(RUN)/test_metrics.json
	@$(VENV)/bin/python scripts/show_metrics.py $(RUN)/metrics.json $(RUN)/test_metrics.json

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest --numprocesses 2 --dist loadscope

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(INSTALLED)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

fixtures: $(INSTALLED)
	$(VENV)/bin/python scripts/make_fixtures.py

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
