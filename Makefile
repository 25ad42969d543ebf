# Two commands on a fresh machine with Python 3.11, pip, make and g++:
#   make demo    the whole story on the model in the box; needs no torch, works offline once installed
#   make test    style, types and every test
# and `make bench`, which reproduces the numbers that the README claims.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable
BUILD_INPUTS := pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)

.PHONY: demo test bench clean

demo: .venv/installed
	$(BIN)/thriftbit demo

test: .venv/installed-for-development
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest

bench: .venv/installed-for-development
	for benchmark in benchmarks/*.py; do $(BIN)/python $$benchmark || exit 1; done

clean:
	rm -rf .venv build demo-output

# The extension is compiled while installing, so a change of native/ installs again; Python files are used in place.
.venv/installed: $(BUILD_INPUTS) | .venv
	@echo "Installing Thriftbit into .venv (once, about a minute)"
	$(INSTALL) .
	@touch $@

.venv/installed-for-development: $(BUILD_INPUTS) | .venv
	@echo "Installing Thriftbit, torch and the test tools into .venv (once, a few minutes)"
	$(INSTALL) ".[torch,development]"
	@touch $@ .venv/installed

.venv:
	$(PYTHON) -m venv .venv
