# One command a job; each sets up .venv by itself.  Needs Python 3.11+ with venv, and pip's registry.
#
#   make run        the chat on http://127.0.0.1:8000 (PORT=... for another), in one process; with LAYER=ipc as
#                   an interface server and a Celery worker, two processes that need no server between them
#   make test       the tests, some files at once (ARGS="tests/unit -k routing" for some, WORKERS=0 one by one)
#   make coverage   the same, and which lines and branches of channelsq/ ran (ARGS as for make test, FLOOR=70 for %)
#   make matrix     some tests on the lowest and newest versions of what channelsq needs, on each Python found
#   make test-ways  what make test leaves out: other pools and brokers, and the slowest tests of browsers and faults
#   make lint       ruff, and whether the formatting is right
#   make format     put the formatting right
#   make types      mypy --strict, on the tests too
#   make pictures   write docs/images/: the pictures of the documentation, taken by tests in Chromium
#   make reference  write docs/reference/api/ from the docstrings
#   make docs       build the documentation as a site into build/docs/ (ARGS="-b linkcheck" checks links to other sites)
#   make package    build the distributions, and try them in empty environments (ARGS="--keep dist" to have them)
#   make release    set VERSION=0.2.0, run everything, commit, tag and build (uploads nothing)
#   make npm        pack the browser library for npm into dist/ (needs Node.js)
#   make autobahn   the WebSocket test suite of Autobahn, some minutes (ARGS='"7.*" -7.1.*' for some cases)
#   make chaos      processes killed, frozen and cut off for five minutes (ARGS="--seconds 60 --seed 7 --sockets 200")
#   make fuzz       what comes from outside, made up, a minute each (ARGS="--seconds 300 frames")
#   make bench      the benchmarks, about half an hour (ARGS="echo http" for parts of them)

.DEFAULT_GOAL := help
.PHONY: help run test coverage test-ways matrix lint format types package npm release pictures reference docs autobahn chaos fuzz bench venv clean

BIN := .venv/bin
PORT ?= 8000
WORKERS ?= auto
FLOOR ?= 0

# Let Python keep what it compiles: the tests start some hundred programs.
unexport PYTHONDONTWRITEBYTECODE

help:
	@sed -n 's/^#   //p' Makefile

run: .venv/.ready
	$(BIN)/python manage.py migrate --verbosity 0
	$(BIN)/python manage.py demo
ifeq ($(LAYER),ipc)
	@interface=; worker=; trap 'kill $$interface $$worker 2>/dev/null; wait' EXIT INT TERM; \
	export IPC_PREFIX=channelsq-demo-$(PORT); \
	$(BIN)/python -m channelsq.interface --port $(PORT) & interface=$$!; \
	$(BIN)/celery -A app worker --loglevel info & worker=$$!; \
	wait
else
	$(BIN)/python manage.py runserver $(PORT)
endif

test: .venv/.ready
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

coverage: .venv/.ready
	@mkdir -p .coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under $(FLOOR)

matrix: .venv/.ready
	$(BIN)/python .ci/matrix.py $(ARGS)

test-ways: .venv/.ready
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --other-ways tests $(ARGS)

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.ready
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

types: .venv/.ready
	$(BIN)/mypy

package: .venv/.ready
	$(BIN)/python .ci/package.py $(ARGS)

npm: .venv/.ready
	$(BIN)/python .ci/npm.py $(ARGS)

release: .venv/.ready
	$(BIN)/python .ci/release.py $(VERSION)

pictures: .venv/.ready
	$(BIN)/python -m pytest --pictures tests/browser $(ARGS)

reference: .venv/.ready
	$(BIN)/python docs/make_reference.py

docs: .venv/.ready
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -j auto -c docs/site $(ARGS) docs build/docs

autobahn: .venv/.ready
	$(BIN)/python -m tests.autobahn $(ARGS)

chaos: .venv/.ready
	$(BIN)/python -m tests.chaos $(ARGS)

fuzz: .venv/.ready
	$(BIN)/python -m tests.fuzz $(ARGS)

bench: .venv/.ready
	$(BIN)/python -m benchmarks $(ARGS)

venv: .venv/.ready

clean:
	rm -rf .venv .coverage .venv-matrix .venv-autobahn .venv-fuzz .venv-peers .fuzz build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis staticfiles

# Stale when what is to be installed has changed, or when the Python it was made with is gone.
ifneq ($(shell $(BIN)/python -c "print('works')" 2>/dev/null),works)
.PHONY: .venv/.ready
endif

.venv/.ready: pyproject.toml requirements.txt
	@set -e; \
	if ! $(BIN)/python -c "" 2>/dev/null; then \
	    for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	        if "$$candidate" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
	            found="$$candidate"; break; \
	        fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "channelsq needs Python 3.11 or later, and none of python3, python3.13, python3.12, python3.11" >&2; \
	        echo "is one.  Install it, or name it: make PYTHON=/path/to/python3.11 ..." >&2; \
	        exit 1; \
	    fi; \
	    echo "Setting up .venv with $$("$$found" --version) ..."; \
	    if ! "$$found" -m venv --clear .venv; then \
	        echo "This Python cannot make virtual environments.  On Debian and Ubuntu: apt install python3-venv" >&2; \
	        exit 1; \
	    fi; \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e ".[dev]"
	@touch $@
