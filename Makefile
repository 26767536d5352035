# climatestream: `make demo` and `make test` are all there is to know; `make help` lists the rest.

PYTHON ?= python3
BIN := .venv/bin
RUN := PYTHONWARNINGS=default $(BIN)/python
FILES ?=

COMPOSE := docker compose --file deploy/compose.yaml

.PHONY: help demo stack stack-check stack-down env env-grib test test-grib test-services test-faults test-page lambda env-lambda check format bench lock docs countries places screenshot

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: env ## the whole pipeline with its page; FILES="a.nc folder/ 'glob*.nc'" replays files
	@$(BIN)/climatestream demo $(FILES)

env: .venv/.made ## the environment, in .venv, from the lock file
.venv/.made: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, got $$($(PYTHON) --version): make PYTHON=python3.12 env"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

env-grib: env ## the extra that reads GRIB
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-grib.lock

test: env ## the tests: no network, no service, under three minutes
	$(BIN)/python -m pytest -n auto

test-grib: env-grib ## the tests that need ecCodes
	$(BIN)/python -m pytest tests -k grib

test-services: env ## the tests with a real Kafka, and a real CrateDB where there is one
	$(MAKE) --jobs 2 --output-sync=target services-faults services-others

# Two halves side by side, each with servers of its own: both wait a lot.
.PHONY: services-faults services-others
services-faults:
	$(BIN)/python -m pytest tests/services/test_faults.py
services-others:
	$(BIN)/python -m pytest tests/services --ignore tests/services/test_faults.py

test-faults: env ## processes really killed, at full counts
	CLIMATESTREAM_FAULT_READINGS=200000 CLIMATESTREAM_FAULT_KILLS=20 \
		$(BIN)/python -m pytest tests/services/test_faults.py --timeout 3600
	CLIMATESTREAM_LAMBDA_READINGS=20000 CLIMATESTREAM_LAMBDA_AWAY_S=60 \
		$(BIN)/python -m pytest tests/services/test_lambda.py --timeout 3600

test-page: env ## the page in a headless browser
	$(BIN)/python -m pytest tests/page --timeout 300 -n 2

lambda: env ## the Lambda function's zips, in dist/, for AWS and for this machine
	$(BIN)/python scripts/make_lambda.py

env-lambda: env ## a Python 3.13 with AWS's runtime client, under which the zip for AWS runs here
	$(BIN)/python scripts/make_lambda_python.py

stack: ## Kafka, CrateDB, Grafana, producer, worker and page, in containers on this machine
	@docker compose version >/dev/null || { echo "The stack needs Docker with its compose plugin"; exit 1; }
	@$(PYTHON) scripts/stack_env.py
	$(COMPOSE) up --build --detach
	@echo "Grafana: http://127.0.0.1:$$(sed -n 's/^GRAFANA_PORT=//p' deploy/.env), admin, with the password in deploy/.env"
	@for _ in $$(seq 60); do \
		page=$$($(COMPOSE) logs --no-log-prefix page | sed -n 's/^The page is at //p' | tail -n 1); \
		[ -z "$$page" ] || break; sleep 1; done; echo "Page: $$page"

stack-check: env ## wait for the stack, and look whether all of it works
	@$(BIN)/python scripts/stack_check.py

PURGE ?=
stack-down: ## end the stack; PURGE=1 deletes its data too
	$(COMPOSE) --profile '*' down $(if $(PURGE),--volumes)

check: env ## lint, format, types, links of the docs, the command reference
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/check_docs.py
	$(BIN)/python scripts/check_page.py

format: env ## lay the code out, mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: env ## the figures of docs/benchmarks.md, as ratios against their yardsticks
	$(BIN)/python -m tests.benchmarks

docs: env ## the command reference, made from --help
	$(BIN)/python scripts/check_docs.py --write

screenshot: env ## docs/page.png, from a running demo
	$(BIN)/python scripts/make_screenshot.py

lock: env ## the lock files, from pyproject.toml
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --extra dev --extra grafana --extra kafka --extra lambda --extra msk --extra zarr --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --extra dev --extra grafana --extra kafka --extra lambda --extra msk --extra zarr --extra grib --constraint requirements.lock \
		--output-file requirements-grib.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --extra cds --extra grafana --extra kafka --extra lambda --constraint requirements.lock \
		--output-file deploy/requirements.lock pyproject.toml
	echo hatchling | $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --constraint requirements.lock --output-file deploy/requirements-build.lock -

places: env ## the cities of the world, from GeoNames
	$(BIN)/python scripts/make_places.py

countries: env ## the outlines of countries, from Natural Earth
	$(BIN)/python scripts/make_countries.py
