# Two commands on a fresh machine with Python 3.11, pip, make and g++:
#   make demo    the whole story on the model in the box, with a report at the end; works offline once installed
#   make test    style, types and every test
# and `make bench`, which reproduces the numbers that the README claims.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable
BUILD_INPUTS := pyproject.toml constraints.txt CMakeLists.txt $(wildcard native/*)

# The report's page is tested in a real browser: any of these, or Chrome on a Mac
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

# Installed where we may; elsewhere we say what to do, and the tests that need it fail and say so as well.
browser:
	@for name in $(BROWSERS); do command -v $$name > /dev/null && exit 0; done; \
	test -x "$(MAC_BROWSER)" && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "Installing Chromium, in which the report's page is tested (once)"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq --no-install-recommends chromium fonts-dejavu-core > /dev/null; \
	else \
		echo "The report's page is tested in a browser: install Chromium (apt-get install chromium) or Chrome."; \
	fi

clean:
	rm -rf .venv build demo-output

# The extension is compiled while installing, so a change of native/ installs again; Python files are used in place.
.venv/installed: $(BUILD_INPUTS) | .venv
	@echo "Installing Thriftbit and torch into .venv (once, a few minutes)"
	$(INSTALL) ".[torch]"
	@touch $@

.venv/installed-for-development: $(BUILD_INPUTS) | .venv
	@echo "Installing Thriftbit, torch and the test tools into .venv (once, a few minutes)"
	$(INSTALL) ".[torch,development]"
	@touch $@ .venv/installed

.venv:
	$(PYTHON) -m venv .venv
