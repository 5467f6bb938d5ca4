# Every target sets up .venv by itself where it needs it; nothing is installed anywhere else.

PYTHON ?= python3
ENGINE ?= auto
SECONDS :=
SCENARIO ?= interactive
RATE ?= 20
VENV := .venv/bin/python
TRIPTYCH := .venv/bin/triptych
PARALLEL := --numprocesses auto --maxprocesses 8 --dist worksteal
# These tests mostly wait, so there are more processes than cores.
WAITING := --numprocesses 3 --dist worksteal
# With it, each process would compile vLLM and torch again, which is more than half of an engine's start.
unexport PYTHONDONTWRITEBYTECODE
LOADTEST = --scenario $(SCENARIO) $(if $(URL),--url $(URL)) $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

help: ## list the targets
	@awk -F ' ## ' '/^[a-z-]+:.* ## / { sub(/:.*/, "", $$1); printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12   the Python to set up with, 3.11 to 3.13"
	@echo "  ENGINE=cpu          set up vLLM for CPUs even where there is an NVIDIA GPU (auto, cpu, gpu)"
	@echo "  SECONDS=300         how long make soak and make loadtest take"

serve: venv ## serve on this machine until Ctrl-C
	@$(TRIPTYCH) serve

check: ## check style and types, and run the unit tests
	@$(MAKE) --no-print-directory --jobs 2 lint test-unit

test: check ## the same, then every other test, with real engines
	@$(MAKE) --no-print-directory --jobs 2 test-fault test-engines

test-unit: dev
	@$(VENV) -m pytest $(PARALLEL) tests/unit

# Then the cluster, which has few engines.
test-fault:
	@$(VENV) -m pytest $(WAITING) tests/fault
	@$(VENV) -m pytest tests/cluster

# In one process, because memory holds the engines of one folder.
test-engines:
	@$(VENV) -m pytest tests/integration tests/e2e

test-cluster: dev ## run the tests on a Ray cluster of several raylets, the long ones too, with real engines
	@REAL_ENGINES=1 $(VENV) -m pytest -m "long or not long" tests/cluster

ray-up: ray ## serve the demo on a Ray that is started here, until Ctrl-C
	@$(TRIPTYCH) ray up --local

loadtest: loadtest-venv ## load the running deployment, or a demo; SCENARIO=mix RATE=20 SECONDS=60 URL=...
	@$(TRIPTYCH) loadtest run $(LOADTEST) --rate $(RATE)

locust: loadtest-venv ## load a running deployment with locust's web page; URL=... ARGS="--tags mix"
	@$(VENV) -m locust -f loadtests/locustfile.py --host $(or $(URL),http://127.0.0.1:8080) $(ARGS)

capacity: loadtest-venv ## search for the highest rate that holds; SLO=p99=250ms,failures=0.1%
	@$(TRIPTYCH) loadtest find-capacity $(LOADTEST) $(if $(SLO),--slo $(SLO))

bench: dev ## measure everything side by side, about 35 minutes; QUICK=1: a few minutes
	@$(TRIPTYCH) bench $(if $(QUICK),--quick)

bench-gpu: dev ## measure everything on this machine's GPU, in at most 45 minutes; SECONDS=600: in less
	@$(TRIPTYCH) bench --gpu $(if $(SECONDS),--budget $(SECONDS))

soak: dev ## serve among faults for minutes, and see that nothing grows
	@SOAK_SECONDS=$(or $(SECONDS),300) $(VENV) -m pytest -s -m "long or not long" tests/fault/test_soak.py tests/e2e/test_soak.py

check-vllm: dev ## check that vLLM VERSION=0.33.0 has the private names that workers use; needs no GPU
	@$(VENV) -m uv pip install --no-deps --target build/vllm-$(VERSION) vllm==$(VERSION)
	@PYTHONPATH=build/vllm-$(VERSION) $(VENV) -m pytest tests/unit/workers/test_interfaces.py

verify: venv ## compare the running deployment's vectors with those published (needs the real weights)
	@$(TRIPTYCH) verify $(if $(URL),--url $(URL))

wheel: dev ## build dist/*.whl, and install and try it with each Python found
	@$(VENV) -m uv build --wheel
	@$(VENV) -m pytest -m "long or not long" tests/unit/test_wheel.py

lint: dev ## check style and types
	@$(VENV) -m ruff check
	@$(VENV) -m ruff format --check
	@$(VENV) -m mypy

format: dev ## put the code into shape
	@$(VENV) -m ruff check --fix
	@$(VENV) -m ruff format

venv: ## set up .venv for this machine
	@$(PYTHON) deploy/install.py --engine $(ENGINE)

ray: ## the same, with Ray
	@$(PYTHON) deploy/install.py --engine $(ENGINE) --ray

loadtest-venv: ## the same, with what load tests need
	@$(PYTHON) deploy/install.py --engine $(ENGINE) --loadtest

dev: ## the same, with what tests and checks need, Ray and load tests included
	@$(PYTHON) deploy/install.py --engine $(ENGINE) --dev

chart: dev ## write the chart's schema and deploy/kubernetes/plain.yaml
	@$(VENV) -m deploy.kubernetes.generate

locks: dev ## resolve the images' dependencies again; UPGRADE=--upgrade: to the newest versions
	@deploy/docker/lock.sh

clean: ## remove .venv, caches and the demo's checkpoints, not merged variants of real weights
	rm -rf .venv .triptych/demo .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help serve check test test-fault test-engines test-cluster ray-up loadtest capacity bench bench-gpu soak check-vllm verify lint format venv ray loadtest-venv dev clean chart locks locust wheel test-unit
