SCALE ?= laptop
OUTPUTS ?= outputs
TO ?= published
WORKERS ?= 0
PYTHON ?= python3
BIN := .venv/bin
# The value of a variable as one word of the shell.
given = '$(subst ','\'',$(value $(1)))'
RUN_ARGUMENTS = --scale $(call given,SCALE) --only $(call given,ONLY) --outputs $(call given,OUTPUTS) --workers $(call given,WORKERS) --launcher $(call given,LAUNCHER)
# What is used from outside: packages, and folders of claims.
ifdef PLUGINS
export EXPERIMENTS_PLUGINS = $(value PLUGINS)
endif
ifdef CLAIMS
export EXPERIMENTS_CLAIMS = $(value CLAIMS)
endif
.PHONY: help setup reproduce seeds rates ledger plan verify dashboard tables merge publish figures readme sync dashboards check quick test faults lint format bench clean

help: ## show this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
setup: .venv/installed ## create .venv and install the pinned dependencies, unless that is done
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv && $(BIN)/pip install --quiet -e ".[dev]" -c constraints.txt && touch $@
reproduce: setup ## run what the ledger lacks, then show it (SCALE=smoke|laptop|gpu|paper ONLY=… WORKERS=… LAUNCHER=slurm)
	$(BIN)/python -m experiments.reproduce $(RUN_ARGUMENTS)
seeds: setup ## add seeds up to the next planned look at what is undecided (ONLY=…)
	$(BIN)/python -m experiments.reproduce $(RUN_ARGUMENTS) --next-look
rates: setup ## judge also at half a decade below and above the chosen learning rates (ONLY=…)
	$(BIN)/python -m experiments.reproduce $(RUN_ARGUMENTS) --shifted-rates
ledger: setup ## show the ledger and rewrite the page from the records, without running anything
	$(BIN)/python -m experiments.reproduce --scale $(call given,SCALE) --outputs $(call given,OUTPUTS) --no-runs
plan: setup ## estimate time and memory of every experiment before it runs (ACCELERATOR=h100|a100|…; default: this machine)
	$(BIN)/python -m experiments.plan --scale $(call given,SCALE) --only $(call given,ONLY) --outputs $(call given,OUTPUTS) --accelerator $(call given,ACCELERATOR)
verify: setup ## repeat a finished run and compare it with its record (RUN=<run id>)
	$(BIN)/python -m experiments.verify $(call given,RUN) --outputs $(call given,OUTPUTS)
dashboard: setup ## open the page in a browser, or W&B's board of all runs in a terminal
	$(BIN)/python -m experiments.dashboard $(call given,OUTPUTS)
tables: setup ## write the ledger and the means of every experiment as LaTeX, Markdown and CSV
	$(BIN)/python -m experiments.tables --scale $(call given,SCALE) --outputs $(call given,OUTPUTS)
merge: setup ## bring the records of other outputs folders into this one (FROM="a/outputs b/outputs")
	$(BIN)/python -m experiments.merge $(FROM) --outputs $(call given,OUTPUTS)
publish: setup ## write a folder with page and records, without paths and user names, for a web server (TO=published)
	$(BIN)/python -m experiments.publish --scale $(call given,SCALE) --outputs $(call given,OUTPUTS) --to $(call given,TO)
figures: setup ## write every chart of the page as SVG, PNG and PDF
	$(BIN)/python -m experiments.figures --scale $(call given,SCALE) --outputs $(call given,OUTPUTS)
readme: setup ## update the tables and the picture in README.md and docs/ from the records
	$(BIN)/python -m experiments.readme --scale $(call given,SCALE) --outputs $(call given,OUTPUTS)
sync: setup ## upload what W&B lacks of the runs; safe to repeat
	$(BIN)/python -m experiments.sync $(call given,OUTPUTS)
dashboards: setup ## write the W&B workspace and report; publish them if WANDB_API_KEY is set
	$(BIN)/python -m experiments.dashboards --scale $(call given,SCALE) --outputs $(call given,OUTPUTS)
check: setup ## lint, and run the tests that need no training: about a minute
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint quick
quick: setup ## run the tests that need no training
	@$(BIN)/python -m pytest -m "not slow"
test: setup ## run all tests
	$(BIN)/python -m pytest
faults: setup ## kill, starve and damage runs on purpose; takes about 15 minutes
	$(BIN)/python -m pytest tests/faults.py tests/faults_machine.py -n 0 -s
lint: setup ## check style, format, types and the import contract
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports
format: setup ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
bench: setup ## measure speed and memory on this machine beside other implementations (JSON=file keeps the figures)
	$(BIN)/pip install --quiet -e ".[bench]" -c constraints.txt && $(BIN)/python -m experiments.bench $(if $(JSON),--json $(call given,JSON))
clean: ## remove .venv; results stay
	rm -rf .venv
