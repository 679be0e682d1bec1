# Two commands for a fresh machine that has Python 3.11 or later and make:
#   make demo   set up, and measure the demo's targets
#   make test   set up, and pass all checks and tests
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ADAPTERS ?= .venv-adapters

.PHONY: demo test check unit test-adapters bench lock schemas clean

demo: $(VENV)/.runtime
	$(BIN)/muster eval examples/demo --no-gate

test: check unit

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: $(VENV)/.dev
	$(BIN)/pytest -n auto

# The adapters with the libraries that they are for, in an environment of their own.
test-adapters: $(ADAPTERS)/.ready
	$(ADAPTERS)/bin/pytest tests/adapters

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py

schemas: $(VENV)/.dev
	for name in suite targets result run report comparison trend power team script stdio-protocol chaos cassette; do \
	  $(BIN)/muster schema $$name > $(VENV)/schema || exit 1; \
	  mv $(VENV)/schema docs/schemas/$$name.schema.json; done

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(BIN)/python requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

$(ADAPTERS)/.ready: requirements-adapters.lock pyproject.toml
	$(PYTHON) -m venv $(ADAPTERS)
	$(ADAPTERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-adapters.lock
	$(ADAPTERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# The lock files name versions and hashes, and no host.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate pyproject.toml
lock: $(BIN)/python
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) -o requirements.lock
	$(LOCK) --group build -o requirements-build.lock
	$(LOCK) --group build --group dev -o requirements-dev.lock
	$(LOCK) requirements-adapters.txt --group build --group dev -o requirements-adapters.lock

clean:
	rm -rf $(VENV) $(ADAPTERS) .mypy_cache .ruff_cache .pytest_cache dist
