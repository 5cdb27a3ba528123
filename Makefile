# The verbs of the project; each is a short script or one command. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN := .venv/bin

# Simulation: seeds and the first of them. `make simulate SEEDS=1 FIRST=4711` repeats one.
SEEDS ?= 10000
FIRST ?= 0
# Exhaustive simulation: changes, and how many choices of a schedule may differ from what comes first.
EVENTS ?= 3
DEVIATIONS ?= 1

.PHONY: help
help: ## list the verbs
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r verb what; do printf '  make %-12s %s\n' "$$verb" "$$what"; done

.PHONY: setup
setup: ## make .venv with everything needed (the other verbs do it by themselves; PYTHON= names the interpreter)
	@scripts/setup.sh $(or $(firstword $(MAKECMDGOALS)),setup)

.PHONY: demo
demo: setup ## see it work: broker, store, model and events are embedded; nothing is left behind (STORE=qdrant and others)
	@$(BIN)/vectide demo $(if $(STORE),--store $(STORE)) $(ARGS)

.PHONY: test
test: setup ## unit, contract, pipeline and simulation tests (ARGS= goes to pytest)
	@$(BIN)/python -m pytest -m "not real and not nightly and not alone and not image" --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)
	@$(BIN)/python -m pytest -m alone $(ARGS) || [ $$? = 5 ] # none of those was asked for

.PHONY: test-real
test-real: setup ## the service on a real Kafka, Connect, Debezium, registry, PostgreSQL and MariaDB; needs Java 17 and Maven (other stores: nightly)
	@$(BIN)/python -m pytest -m "real and not nightly" -rs tests/real $(ARGS)

.PHONY: image
image: ## build deploy/Dockerfile without a container engine (root on Debian), and say where it was unpacked
	@scripts/image.sh $(ARGS)

.PHONY: test-image
test-image: setup image ## build the image, and start the service from it
	@$(BIN)/python -m pytest -m image tests/image

.PHONY: chart
chart: setup ## the Helm chart, alert rules and compose file, promtool included (of Debian where it is not installed)
	@VECTIDE_CHART_MUST_RUN=1 $(BIN)/python -m pytest tests/deploy $(ARGS)

.PHONY: kube
kube: setup ## the chart on a real API server, built from Go modules the first time (needs Go 1.26): posted strictly, installed, upgraded
	@$(BIN)/python -m pytest -m nightly -rs tests/kube $(ARGS)

.PHONY: simulate
simulate: setup ## the pump against simulated parts: SEEDS=10000 from FIRST=0
	@$(BIN)/python -m tests.simulation.run $(FIRST) $(SEEDS)

.PHONY: explore
explore: setup ## every schedule of small worlds: EVENTS=3 changes, DEVIATIONS=1 from what comes first
	@$(BIN)/python -m tests.simulation.exhaustive $(EVENTS) $(DEVIATIONS)

.PHONY: mutants
mutants: setup ## plant every defect of tests/mutants, and show the test that finds it (ARGS= words of their names)
	@$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: chaos
chaos: setup ## several real processes, everything around them failing by seed: SEEDS=10 from FIRST=0; needs Java, Maven and Go
	@$(BIN)/python -m tests.chaos --first $(FIRST) --seeds $(if $(filter command line,$(origin SEEDS)),$(SEEDS),10)

.PHONY: outage
outage: setup ## the provider away for MINUTES=10, then the store, under load; needs Java, Maven and Go
	@$(BIN)/python -m tests.chaos.outage --minutes $(or $(MINUTES),10)

.PHONY: behind
behind: setup ## the memory of a process with a million changes before it; needs Java, Maven and Go
	@$(BIN)/python -m tests.chaos.behind

.PHONY: fuzz
fuzz: setup ## the decoders, the mapping and the planner against a hundred times as much nonsense as in the tests
	@$(BIN)/python -m pytest --hypothesis-profile=fuzz --timeout=3600 tests/unit/test_codec_fuzz.py tests/unit/test_registry_codec_fuzz.py tests/unit/test_where.py tests/pipeline/test_pump_fuzz.py

.PHONY: bench
bench: setup ## measure it against a plain consume-embed-write loop
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: lint
lint: setup ## style of the code, and who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m scripts.check_imports

.PHONY: type
type: setup ## types, strictly, tests included
	@$(BIN)/mypy

.PHONY: docs
docs: setup ## write the pages that are made from the code
	@$(BIN)/python -m scripts.generate_docs

.PHONY: docs-check
docs-check: setup ## verify that those pages are up to date, and that the links between pages lead somewhere
	@$(BIN)/python -m scripts.generate_docs --check

.PHONY: site
site: setup ## the docs as a site, in build/site; a link or heading that there is not is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

.PHONY: nightly
nightly: setup ## whatever takes longer: the real stack, replicas by lag, the chart on a real API server, many more simulated seeds, every planted defect, the benchmark
	@$(BIN)/python -m tests.weaviate_program
	@$(BIN)/python -m pytest -m "nightly and not real"
	@$(BIN)/python -m pytest -m real -rs tests/real
	@$(MAKE) test-image
	@$(MAKE) fuzz
	@$(MAKE) chaos
	@$(MAKE) outage MINUTES=4
	@$(MAKE) behind
	@$(MAKE) simulate SEEDS=20000 FIRST=$(shell date +%Y%m%d)00000
	@$(MAKE) explore EVENTS=4
	@$(MAKE) explore EVENTS=2 DEVIATIONS=2
	@$(MAKE) mutants
	@$(MAKE) bench

.PHONY: lock
lock: ## take the newest versions that pyproject.toml allows into requirements.lock
	@scripts/lock.sh --upgrade

.PHONY: clean
clean: ## remove whatever the other verbs made, .venv included
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
