# climatestream: `make demo` and `make test` are all there is to know; `make help` lists the rest.

PYTHON ?= python3
BIN := .venv/bin
RUN := PYTHONWARNINGS=default $(BIN)/python
FILES ?=

COMPOSE := docker compose --file deploy/compose.yaml

.PHONY: help demo stack stack-check stack-down env env-grib test test-grib test-services test-faults test-page test-aws env-aws synth bootstrap deploy undeploy replay lambda env-lambda check format bench bench-services lock docs countries places screenshot

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

env-aws: env ## the AWS CDK and the linters of its templates
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --require-hashes -r requirements-aws.lock
	$(PYTHON) -m venv build/checkov
	build/checkov/bin/pip install --quiet --no-compile --disable-pip-version-check --require-hashes -r requirements-checkov.lock

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

test-aws: env-aws ## the tests of what runs on AWS, and of its templates: no account, no network
	$(BIN)/mypy -p climatestream_aws -p tests.aws
	$(BIN)/python -m pytest tests/aws --timeout 300

CONFIG ?= default
DEPLOYMENT = --config $(CONFIG) $(if $(STORE),--store '$(STORE)') $(if $(ALLOW),--allow $(ALLOW)) \
	$(if $(EMAIL),--email $(EMAIL)) $(if $(DOMAIN),--domain $(DOMAIN) --hosted-zone $(ZONE))
AWS = PYTHONPATH=deploy/aws $(BIN)/python -m climatestream_aws

synth: env-aws lambda ## the templates of three configurations, under cdk.out/, judged by linters
	$(AWS) synth

bootstrap: env-aws ## prepare a region of your AWS account for the CDK, once
	$(AWS) bootstrap $(DEPLOYMENT)

deploy: env-aws lambda ## all of it on AWS; STORE=crate://admin@HOST:4200/demo?ssl=true ALLOW=YOUR.ADDRESS/32
	@$(AWS) deploy $(DEPLOYMENT)

undeploy: env-aws ## take away all that costs money; the same STORE and CONFIG
	@$(AWS) undeploy $(DEPLOYMENT)

replay: env-aws lambda ## consume the topic again; FROM=2025-08-10T06:00:00Z, or FROM=never
	@$(AWS) replay $(DEPLOYMENT) $(FROM)

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

bench-services: env ## those with a real Kafka and a real CrateDB: half an hour
	$(BIN)/python -m tests.benchmarks.kafka
	$(BIN)/python -m tests.benchmarks.crate
	$(BIN)/python -m tests.benchmarks.servers

docs: env ## the command reference, made from --help
	$(BIN)/python scripts/check_docs.py --write

screenshot: env ## docs/page.png, from a running demo
	$(BIN)/python scripts/make_screenshot.py

COMPILE = $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
	--no-emit-index-url
EXTRAS := --extra dev --extra grafana --extra kafka --extra lambda --extra msk --extra zarr
lock: env ## the lock files, from pyproject.toml
	$(BIN)/pip install --quiet uv
	$(COMPILE) $(EXTRAS) --output-file requirements.lock pyproject.toml
	$(COMPILE) $(EXTRAS) --extra grib --constraint requirements.lock \
		--output-file requirements-grib.lock pyproject.toml
	$(COMPILE) $(EXTRAS) --extra aws --extra aws-test --constraint requirements.lock \
		--output-file requirements-aws.lock pyproject.toml
	echo checkov | $(COMPILE) --output-file requirements-checkov.lock -
	$(COMPILE) --extra cds --extra grafana --extra kafka --extra lambda --extra msk --extra zarr \
		--constraint requirements.lock --output-file deploy/requirements.lock pyproject.toml
	echo hatchling | $(COMPILE) --constraint requirements.lock --output-file deploy/requirements-build.lock -

places: env ## the cities of the world, from GeoNames
	$(BIN)/python scripts/make_places.py

countries: env ## the outlines of countries, from Natural Earth
	$(BIN)/python scripts/make_countries.py
