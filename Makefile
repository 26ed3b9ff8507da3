# The one entry point, for people and for CI. Needs make and Python 3.11 or newer; everything else it makes itself.
.DEFAULT_GOAL := help
.PHONY: run test check bench demo lock wheel programs clean help

BIN := .venv/bin
# An environment is ready when it has a mark that names what it was made from; an interrupted one has none.
DEV := .venv/ready-$(shell cksum < requirements-dev.txt | tr ' ' '-')
BENCH := .venv-bench/ready-$(shell cat requirements-dev.txt benchmarks/requirements.txt 2>/dev/null | cksum | tr ' ' '-')
export PYTHON

run: $(DEV) ## set everything up and run it: server, database, worker and traffic, until Ctrl-C
	@exec $(BIN)/python -m examples.run

demo: $(DEV) ## the same for 20 seconds, ending with a summary; fails if anything was lost or stale
	@exec $(BIN)/python -m examples.run --demo

test: $(DEV) $(if $(filter true,$(CI)),programs) ## all tests, on all cores; one of them: make test ARGS='-k name'
	$(BIN)/python -m pytest -n logical --dist loadgroup $(ARGS)

check: $(DEV) ## lint, formatting, types, import contract, and what else holds of the repository as a whole
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -p no:randomly tests/unit/test_repository.py

bench: $(BENCH) ## benchmarks beside the peers, in an environment of their own
	.venv-bench/bin/python -m benchmarks $(ARGS)

lock: $(DEV) ## compile the lock files after a change of dependencies; UPGRADE=1 takes the newest
	$(BIN)/python .ci/lock.py

programs: ## install what some tests drive: Chromium, Redis 7, Node (Debian's packages); CI does, else they are skipped
	@.ci/programs

wheel: $(DEV) ## build the wheel into dist/
	$(BIN)/python -m hatchling build -t wheel

clean: ## remove what make and the programs have made: environments, data, caches
	rm -rf .venv .venv-bench .data dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(DEV):
	@.ci/venv .venv requirements-dev.txt
	@rm -f .venv/ready-*
	@touch $@

$(BENCH):
	@.ci/venv .venv-bench requirements-dev.txt benchmarks/requirements.txt
	@rm -f .venv-bench/ready-*
	@touch $@
