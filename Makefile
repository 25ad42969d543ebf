# Two commands on a fresh machine with Python 3.11, pip, make and a C++ compiler:
#   make demo    installs Thriftbit and torch into .venv, then shows all it does on the small model in the box
#   make test    installs the test tools as well, then checks style and types and runs every test
# `make bench` measures again what docs/results.md claims.
#
# On Linux, pip takes torch with CUDA: several GB. Without an NVIDIA GPU, take the build for the CPU (200 MB):
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt --editable
BUILD_INPUTS := pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)

# Web pages are tested in a real browser: any of these, or Chrome on a Mac
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable
MAC_BROWSER := /Applications/Google Chrome.app/Contents/MacOS/Google Chrome

.PHONY: demo test bench clean browser

demo: .venv/installed
	$(BIN)/thriftbit demo --output demo-output

test: .venv/installed-for-development browser
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

bench: .venv/installed-for-development
	for benchmark in benchmarks/*.py; do $(BIN)/python $$benchmark || exit 1; done

# As root on Debian or Ubuntu, Chromium is installed. Elsewhere this says what to install.
browser:
	@for name in $(BROWSERS); do command -v $$name > /dev/null && exit 0; done; \
	test -x "$(MAC_BROWSER)" && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "Installing Chromium, in which web pages are tested (once)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq --no-install-recommends chromium fonts-dejavu-core > /dev/null; \
	else \
		echo "Web pages are tested in a browser: install Chromium (apt-get install chromium) or Chrome."; \
	fi

clean:
	rm -rf .venv build demo-output

# Installing compiles native/, so a change there installs again. Python files are used in place.
.venv/installed: $(BUILD_INPUTS) | .venv
	@echo "Installing Thriftbit and torch into .venv (once; 1.5 GB of disk, more where torch comes with CUDA)"
	$(INSTALL) ".[torch]"
	@touch $@

.venv/installed-for-development: $(BUILD_INPUTS) | .venv
	@echo "Installing Thriftbit, torch and the test tools into .venv (once; 2 GB of disk, more where torch comes with CUDA)"
	$(INSTALL) ".[torch,mcp,development]"
	@touch $@ .venv/installed

.venv:
	$(PYTHON) -m venv .venv
