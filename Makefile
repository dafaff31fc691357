SCALE ?= laptop
ONLY ?=
OUTPUTS ?= outputs
WORKERS ?= 0
LAUNCHER ?=
N ?= 8
ACCELERATOR ?=
RUN ?=
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup plan reproduce seeds ledger figures readme dashboards sync dashboard verify test faults lint bench clean

help: ## show this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/installed ## make .venv and install everything, pinned, if that is not done yet

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e ".[dev]" -c constraints.txt
	@touch $@

plan: setup ## print what every experiment will cost before it runs (SCALE=, ACCELERATOR=h100|a100|…, this machine if none)
	$(BIN)/python -m experiments.plan --scale $(SCALE) --only "$(ONLY)" --outputs $(OUTPUTS) --accelerator "$(ACCELERATOR)"

reproduce: setup ## run what the ledger lacks, then show it (SCALE=smoke|laptop|gpu|paper, ONLY=experiment,…)
	$(BIN)/python -m experiments.reproduce --scale $(SCALE) --only "$(ONLY)" --outputs $(OUTPUTS) --workers $(WORKERS) --launcher "$(LAUNCHER)"

seeds: setup ## add seeds to what is inconclusive, until it is decided or has N of them (N=8, ONLY=experiment,…)
	$(BIN)/python -m experiments.reproduce --scale $(SCALE) --only "$(ONLY)" --outputs $(OUTPUTS) --workers $(WORKERS) --launcher "$(LAUNCHER)" --seeds $(N)

ledger: setup ## print the ledger and rewrite the page from the records there are, without running anything
	$(BIN)/python -m experiments.reproduce --scale $(SCALE) --outputs $(OUTPUTS) --no-runs

figures: setup ## write every chart of the page as SVG and PNG, into report/figures
	$(BIN)/python -m experiments.figures --scale $(SCALE) --outputs $(OUTPUTS)

dashboards: setup ## write the W&B workspace and report of the records there are; published if WANDB_API_KEY is set
	$(BIN)/python -m experiments.dashboards --scale $(SCALE) --outputs $(OUTPUTS)

readme: setup ## put the ledger's table and picture into README.md, from the records there are
	$(BIN)/python -m experiments.readme --scale $(SCALE) --outputs $(OUTPUTS)

sync: setup ## upload to W&B what was tracked offline; what is there already is not sent again
	$(BIN)/python -m experiments.sync $(OUTPUTS)

dashboard: setup ## open the page in the browser or, where there is only a terminal, W&B's board of all runs
	$(BIN)/python -m experiments.dashboard $(OUTPUTS)

verify: setup ## repeat a finished run and compare it with its record (RUN=<run id>)
	$(BIN)/python -m experiments.verify "$(RUN)" --outputs $(OUTPUTS)

test: setup ## run all tests
	$(BIN)/python -m pytest

faults: setup ## kill, starve and damage runs on purpose and tell what happens; takes about 15 minutes
	$(BIN)/python -m pytest tests/faults.py tests/faults_machine.py -n 0 -s

lint: setup ## check style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: setup ## measure speed and memory on this machine, beside other implementations
	$(BIN)/pip install --quiet -e ".[bench]" -c constraints.txt
	$(BIN)/python -m experiments.bench

clean: ## remove .venv; results stay
	rm -rf .venv
