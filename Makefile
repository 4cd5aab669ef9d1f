# `make` lists what there is. Everything below sets itself up on first use; a second call starts at once.

PYTHON ?= python3.11
VENV   ?= .venv
RUN    := $(VENV)/bin/python
PIP    := $(RUN) -m pip --disable-pip-version-check
# Tests start many processes: with bytecode each reads the package instead of compiling it anew. The plug-ins are of
# dependencies, take a second to load, and serve no test.
PYTEST := PYTHONDONTWRITEBYTECODE= $(RUN) -m pytest -p no:hydra_pytest -p no:anyio
# A file stays in one process, for what its tests share; in the order of their names the small files come last. One
# process more than there are cores: browsers and child processes are waited for a quarter of the time.
SPREAD := --numprocesses $(shell expr $$(nproc) + 1) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
LOCKS  := requirements/build.txt requirements/lock.txt requirements/assets.txt requirements/detectron2.txt
# Named after what was installed, so that a changed lock, not a new time stamp, sets up again.
READY  := $(VENV)/.ready-$(shell cat $(LOCKS) pyproject.toml | sha256sum | cut -c1-16)
# benchmarks/sfod/trees_more.py is bench-sfod-trees-more, and a room's study.py is called as the room is.
BENCHES := $(shell grep -rl --include='*.py' '^if __name__' benchmarks | LC_ALL=C sort)
bench    = bench-$(subst /,-,$(subst _,-,$(patsubst benchmarks/%.py,%,$(1:/study.py=.py))))

.DEFAULT_GOAL := help
.PHONY: help setup demo app test test-slow test-gpu lint format bench repack-demos doctor lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## install everything, pinned, into .venv (about 6 GB)

demo: $(READY) ## adapt a detector of tree crowns to a new domain, and write a report
	@$(RUN) -m pipelines.sfod train

app: $(READY) ## open all demo pages in the browser, with the shipped models (ARGS='--no-browser')
	@$(RUN) -m apps $(ARGS)

test: $(READY) ## run the tests (ARGS='-k name' for some)
	@$(PYTEST) $(SPREAD) -m 'not slow and not gpu' $(ARGS)

test-slow: $(READY) ## run the tests that take long
	@$(PYTEST) $(SPREAD) -m 'slow and not gpu' $(ARGS)

test-gpu: $(READY) ## run the tests that need a GPU
	@$(PYTEST) -m gpu tests/gpu $(ARGS)

lint: $(READY) ## check style, types and the direction of imports
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

format: $(READY) ## put the code into shape
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: ## list the benchmarks; `make bench-startup` runs that one
	@printf '  make %s\n' $(foreach each,$(BENCHES),$(call bench,$(each)))

$(foreach each,$(BENCHES),$(eval $(call bench,$(each)): $(READY); @$$(RUN) -m $(subst /,.,$(each:.py=)) $$(ARGS)))

bench-%:
	$(error There is no '$@': `make bench` lists what there is)

repack-demos: $(READY) ## bring the shipped bundles to the format of this version
	@$(RUN) -m benchmarks.repack_demos

doctor: ## say what this machine has and lacks
	@$(if $(wildcard $(RUN)),$(RUN),$(PYTHON)) -m apps.doctor

lock: $(READY) ## resolve requirements/lock.txt anew
	$(RUN) requirements/lock.py $(ARGS)

clean: ## remove the environment
	rm -rf $(VENV)

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Python 3.11 is needed, and '$(PYTHON)' is not it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing into $(VENV): about 6 GB, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes --no-deps --requirement requirements/build.txt
	$(PIP) install --require-hashes --no-deps --no-build-isolation \
		--requirement requirements/lock.txt --requirement requirements/assets.txt
	$(RUN) requirements/install_detectron2.py
	$(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.ready-*
	@touch $@
