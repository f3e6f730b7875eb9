# The only front door. `make help` lists what there is; everything it does is in deploy/local.
# Settings: PORT (8080), STATE_DIR (.state), ADMIN_EMAIL (admin@example.com), ADMIN_PASSWORD (else generated).

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PORT ?= 8080
STATE_DIR ?= .state
ADMIN_EMAIL ?= admin@example.com
ADMIN_PASSWORD ?=
PYTHON ?= python3
export PORT STATE_DIR ADMIN_EMAIL ADMIN_PASSWORD

# Nothing is written beside the sources; compiled files are kept, in STATE_DIR: to compile them anew costs every start seconds.
unexport PYTHONDONTWRITEBYTECODE
STATE := $(abspath $(STATE_DIR))
export PYTHONPYCACHEPREFIX = $(STATE)/bytecode
export RUFF_CACHE_DIR = $(STATE)/ruff
export MYPY_CACHE_DIR = $(STATE)/mypy
export PYTEST_DEBUG_TEMPROOT = $(STATE)/test
export HYPOTHESIS_STORAGE_DIRECTORY = $(STATE)/hypothesis

LOCAL = $(PYTHON) -B -m deploy.local
CONTAINERS = $(PYTHON) -B -m deploy.compose
IN_ENVIRONMENT = $(STATE)/venv/bin/python -m
PYTEST = $(IN_ENVIRONMENT) pytest -o cache_dir=$(STATE)/pytest
CODE = libs services simulators gateway deploy tests conftest.py
# Every service has a package named tests, so mypy looks at each of them by itself.
OWN_TESTS = $(wildcard services/*/tests libs/*/tests)

TEST_PROCESSES ?= 3

# `make scale leads=3` and `make logs service=leads` take their words from the command line.
SCALABLE = auth leads workflows crm-sync leads-worker workflows-worker crm-sync-worker
WISHES = $(foreach name,$(SCALABLE),$(if $($(name)),$(name)=$($(name))))

##@ The system
run: python ## Install what is missing, start everything, show a lead's way through it
	@$(LOCAL) run

stop: python ## Stop everything
	@$(LOCAL) stop

status: python ## What runs (process, replicas, pid, port, memory, health), and the measured figures
	@$(LOCAL) status

logs: python ## Follow the logs of all processes, or of one service: make logs service=leads
	@$(LOCAL) logs $(service)

scale: python ## Change the number of replicas while it runs: make scale leads=3
	@$(LOCAL) scale $(or $(strip $(WISHES)),$(error say which service and how many, e.g. make scale leads=3))

figures: python ## Measure memory at rest and how long a lead takes to its CRM id
	@$(LOCAL) figures

rotate-keys: python ## Put new signing and encryption keys in use, without an interruption
	@$(LOCAL) rotate-keys

announce-again: python ## Publish the last 72 hours' events once more, of all services or one: make announce-again service=leads
	@$(LOCAL) announce-again $(service)

clean: python ## Stop everything and remove STATE_DIR with all data
	@$(LOCAL) clean

##@ The system in containers
up: python ## Make .env, build the images, start the containers, show a lead's way
	@$(CONTAINERS) up

down: python ## Stop the containers; with volumes=1 remove their data too, after asking
	@$(CONTAINERS) down $(if $(volumes),--volumes)

rollout: python ## Replace the containers of a service, without a failed request: make rollout service=leads
	@$(CONTAINERS) rollout $(or $(service),$(error say which service, e.g. make rollout service=leads))

##@ The code
test: tools ## All tests that take no minutes, against real servers of their own
	@$(PYTEST) -n $(TEST_PROCESSES) --max-worker-restart 0 --dist loadscope --no-loadscope-reorder -m "not long and not containers"

test-compose: tools ## The tests in containers: Docker Engine with Compose v2 has to be there
	@$(PYTEST) -m containers --timeout 900 tests/compose

test-long: tools ## The tests that wait for minutes
	@$(PYTEST) -m long --timeout 900

test-unit: tools ## The tests that need no server
	@$(PYTEST) -m "unit and not long"

lint: tools ## ruff, mypy, import rules, event schemas, API documents, nginx -t
	@$(IN_ENVIRONMENT) ruff check .
	@$(IN_ENVIRONMENT) ruff format --check .
	@$(IN_ENVIRONMENT) mypy $(CODE) --exclude '^(libs|services)/[^/]+/tests/'
	@for folder in $(OWN_TESTS); do $(IN_ENVIRONMENT) mypy $$folder || exit 1; done
	@$(STATE)/venv/bin/lint-imports --cache-dir $(STATE)/import-linter
	@$(IN_ENVIRONMENT) contracts.check
	@$(IN_ENVIRONMENT) contracts.asyncapi --check docs/asyncapi.json
	@$(IN_ENVIRONMENT) gateway.openapi --check
	@$(LOCAL) lint-gateway

fmt: tools ## Put the code in its form
	@$(IN_ENVIRONMENT) ruff check --fix .
	@$(IN_ENVIRONMENT) ruff format .

docs: tools ## Write the documents that are made from the code: OpenAPI and AsyncAPI
	@$(IN_ENVIRONMENT) gateway.openapi
	@$(IN_ENVIRONMENT) contracts.asyncapi docs/asyncapi.json

lock: python ## Pin all Python packages anew, from requirements*.in
	@$(LOCAL) lock

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile
	@printf '\nSettings: PORT=%s STATE_DIR=%s ADMIN_EMAIL=%s ADMIN_PASSWORD\n' '$(PORT)' '$(STATE_DIR)' '$(ADMIN_EMAIL)'

python:
	@$(PYTHON) -B -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "make: needs Python 3.11 or newer: as root, apt-get install python3 (or name one: PYTHON=python3.12)" >&2; exit 1; }

tools: python
	@$(LOCAL) test-setup

.PHONY: run stop status logs scale figures rotate-keys announce-again clean up down rollout test test-compose test-long test-unit lint fmt docs lock help python tools
