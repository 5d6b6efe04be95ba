# The commands of this project. Nothing is assumed but Debian, Python 3.11 or newer, and make.

PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
BIN := .venv/bin
READY := .venv/ready
#: Seconds that `soak` fuzzes each of its targets.
FUZZ_S ?= 600

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench bench-accuracy bench-learning soak format clean .venv

help: ## what can be made
	@sed -n 's/^\([a-z.-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

demo: $(READY) ## a producer, the daemon and the live page on this machine; Ctrl-C ends it
	@$(BIN)/forecastd demo $(ARGS)

test: $(READY) ## the tests
	$(BIN)/python -m pytest $(ARGS)

check: $(READY) ## what must be green before a change lands: style, types, import rules, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd .venv/typed && ../bin/mypy --config-file forecastd/pyproject.toml --cache-dir ../mypy -p forecastd.daemon -p forecastd.models -p forecastd.producers
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(ARGS)

bench: $(READY) ## how fast it is on this machine, written to docs/benchmarks.md
	$(BIN)/python -m benchmarks $(ARGS)

bench-accuracy: $(READY) ## how well it forecasts, written to docs/accuracy.md
	$(BIN)/python -m benchmarks.accuracy $(ARGS)

bench-learning: $(READY) ## what learning costs the daemon that serves, written to docs/learning.md
	$(BIN)/python -m benchmarks.learning $(ARGS)

soak: $(READY) ## hours of faults: 10,000 simulated worlds, 200 kills (a failing seed replays), a fuzzer, 2,000 fine-tunes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	$(BIN)/python -m forecastd.tests.fuzz wire $(FUZZ_S)
	$(BIN)/python -m forecastd.tests.fuzz configuration $(FUZZ_S)
	$(BIN)/python -m forecastd.tests.sim 0 10000
	FORECASTD_SOAK=200 $(BIN)/python -m pytest --timeout 0 tests/e2e/test_kill.py tests/e2e/test_syscalls.py
	$(BIN)/python -m benchmarks.learning --soak --only memory --check --out /dev/null

format: $(READY) ## puts the style right where a machine can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv: $(READY) ## the virtual environment, from the pinned versions

# `ready` is touched last, so a half-made environment is made again. `typed` shows the checker the package under its own name,
# whatever the folder of this checkout is called.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "forecastd needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qqy python3-venv; } \
		|| { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@mkdir -p .venv/typed && ln -sfn ../.. .venv/typed/forecastd
	@touch $(READY)

clean: ## removes what was made here
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
