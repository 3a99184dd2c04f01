# make demo   the whole loop on real data, in minutes
# make test   ruff, mypy, all tests but the long ones
# make soak   the long ones: load, nodes and networks that fail
# make bench  ratios of one run; make bench ROW=loop for one row
# make clean  removes the environment and what the demo wrote

PYTHON ?= python3
VENV := .venv
SOAK := soak
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test soak lint bench clean browser

demo: $(VENV)/installed
	$(BIN)/sizer sweep demo
	$(BIN)/sizer report demo

# Ray and the browser want the cores for themselves; all else runs in two processes.
test: lint browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not alone and not soak"
	$(BIN)/python -m pytest -m "alone and not soak"

soak: $(VENV)/installed-test browser
	$(BIN)/python -m pytest -m "$(SOAK)"

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-test
	$(BIN)/python -m tests.benchmarks $(ROW)

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sizer needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) --editable '.[test]'
	@touch $@

# The tests of pages and report open them in a real browser. Where none can be installed, they say so and are left out.
browser:
	@command -v chromium >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq chromium >/dev/null; \
	else echo "no chromium here: the tests in a browser will be left out"; fi

clean:
	rm -rf $(VENV) *.egg-info sizer.db sizer.db-shm sizer.db-wal sizer.files report.html bench.json
