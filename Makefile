# Everything a newcomer types. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := bash
python := .venv/bin/python
T ?= tests
SECONDS ?= 300
WORKERS ?= 3

.PHONY: run test check types lint audit fuzz faults bench bench-classify load vendor docs openapi screenshots lock servers setup clean help

run: .venv/.ready-run ## Start everything on this machine and print the inbox' link (creates .venv on the first call)
	@.venv/bin/notifyr run $(ARGS)

test: .venv/.ready-train ## Run the tests on real servers; T=tests/channels runs a part, WORKERS=0 one after another in one process
	@scripts/install_test_servers.sh
	@$(python) -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder $(T) $(ARGS)

check: .venv/.ready-dev ## Lint, types, import floors, generated files up to date
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target types lint

types: .venv/.ready-dev ## The types alone
	@.venv/bin/mypy

lint: .venv/.ready-dev ## Everything of `check` but the types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/lint-imports
	@$(python) scripts/settings_doc.py --check
	@$(python) scripts/keys_doc.py --check
	@$(python) scripts/operations_doc.py --check
	@$(python) scripts/openapi.py --check
	@$(python) scripts/checklist_doc.py --check
	@$(python) scripts/model_card.py --check
	@$(python) scripts/sbom.py --check
	@$(python) scripts/check_links.py

fuzz: .venv/.ready-dev ## Fuzz every door that strangers' bytes come through; SECONDS=300 for all together
	@$(python) tests/fuzz/run.py --seconds $(SECONDS)

faults: .venv/.ready-dev ## More than a landing: 2,000 deaths of each path of a mail, 2,000 histories of each machine, 10,000 interleavings of each cast; and the fuzzing
	@scripts/install_test_servers.sh
	@TEST_CRASH_SECONDS=3000 TEST_MACHINE_EXAMPLES=2000 TEST_MACHINE_SECONDS=3000 TEST_INTERLEAVINGS=10000 \
	  TEST_INTERLEAVING_SECONDS=3000 \
	  $(python) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder tests/faults tests/fuzz \
	  -k "(crash or history or interleaving or fuzz) and not postgresql" $(ARGS)

bench: .venv/.ready-dev ## Measure triage and the API against named baselines, as ratios of one run
	@scripts/install_test_servers.sh bogofilter
	@$(python) -m pytest tests/benchmarks -q -s --slow -k "not classif and not spam_peers and not load and not lists" $(ARGS)

bench-classify: .venv/.ready-train ## Measure the classifier against bogofilter and SpamAssassin; CORPUS= SPLIT= SMS= name the data
	@scripts/install_test_servers.sh bogofilter spamassassin
	@$(python) -m pytest tests/benchmarks -q -s --slow -k classif $(ARGS)

load: .venv/.ready-dev ## Hold 50 mails a second beside 200 open pages for a minute, and list a million threads
	@$(python) -m pytest tests/benchmarks/test_load.py tests/benchmarks/test_lists.py -q -s --slow $(ARGS)

vendor: ## Fetch the browser libraries from npm again, at their pinned versions
	@python3 scripts/vendor.py

docs: .venv/.ready-dev ## Write the generated pages of docs/ and check every link
	@$(python) scripts/settings_doc.py
	@$(python) scripts/keys_doc.py
	@$(python) scripts/operations_doc.py
	@$(python) scripts/openapi.py
	@$(python) scripts/checklist_doc.py
	@$(python) scripts/model_card.py
	@$(python) scripts/check_links.py

openapi: .venv/.ready-dev ## Write docs/openapi.json from the code
	@$(python) scripts/openapi.py

screenshots: .venv/.ready-dev ## Take the pictures in docs/images from a running demo
	@$(python) scripts/screenshots.py

lock: .venv/.ready-dev ## Resolve and pin every dependency again, with hashes
	@scripts/lock.sh
	@$(python) scripts/sbom.py

audit: .venv/.ready-dev ## Compare every locked package with the published advisories (needs the network)
	@$(python) scripts/audit.py

servers: ## Install what the tests need from Debian (root or sudo)
	@scripts/install_test_servers.sh

setup: .venv/.ready-dev ## Only create .venv with everything for development

clean: ## Remove caches; .venv and var stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

.venv/.ready-run: requirements/pip.txt requirements/runtime.txt requirements/models.txt scripts/bootstrap.sh
	@scripts/bootstrap.sh run

.venv/.ready-dev: requirements/pip.txt requirements/runtime.txt requirements/models.txt requirements/dev.txt scripts/bootstrap.sh
	@scripts/bootstrap.sh dev

.venv/.ready-train: .venv/.ready-dev requirements/train.txt scripts/install_train.sh
	@scripts/install_train.sh
	@touch $@
