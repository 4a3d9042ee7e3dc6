# Everything a newcomer needs: `make demo` and `make test`. `make help` explains the rest.
.DEFAULT_GOAL := help
CARGO ?= cargo
# What tests and benches may do: end with a panic, and tell a long story.
IN_TESTS = -A clippy::unwrap_used -A clippy::expect_used -A clippy::panic -A clippy::too_many_lines \
	-A clippy::cast_possible_truncation -A clippy::needless_pass_by_value -A clippy::redundant_clone

# Tools that are not part of a build: installed once, by version, below target/.
DENY_VERSION = 0.20.2
CYCLONEDX_VERSION = 0.5.9
SCHEMATHESIS_VERSION = 4.32.5
REDOCLY_VERSION = 2.77.0
DENY = target/tools/deny-$(DENY_VERSION)/bin/cargo-deny
CYCLONEDX = target/tools/cyclonedx-$(CYCLONEDX_VERSION)/bin/cargo-cyclonedx

SCHEMATHESIS = target/tools/schemathesis-$(SCHEMATHESIS_VERSION)/bin/schemathesis

FUZZ_TARGETS = $(basename $(notdir $(wildcard fuzz/targets/*.rs)))

help: ## Explain every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## See the main job at work, embedded: builds, runs under 30 s, ends by itself
	$(CARGO) run --quiet --locked -- demo

demo-keep: ## The same, and go on serving to try things out; Ctrl-C ends it
	$(CARGO) run --quiet --locked -- demo --keep

test: ## Run every test (starts RabbitMQ, Redis and a browser of its own)
	tests/services/run.sh sh -c '$(CARGO) test --locked && tests/browser/run.sh'

test-browser: ## The console in Chromium alone; SHOTS=folder writes a picture of every page
	tests/browser/run.sh

lint: ## Formatting, clippy and rustdoc; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --locked --lib --bins -- -D warnings
	$(CARGO) clippy --locked --all-targets -- -D warnings $(IN_TESTS)
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

audit: $(DENY) ## Advisories, licences, bans and sources of all dependencies (deny.toml; needs the network)
	$(DENY) --locked check

sbom: $(CYCLONEDX) ## Write carillon.cdx.json: what a release binary contains (CycloneDX)
	$(CYCLONEDX) cyclonedx --format json --override-filename carillon.cdx \
		--spec-version 1.5 --no-build-deps --quiet
	sed 's|$(CURDIR)|/carillon|g' carillon.cdx.json > carillon.cdx.json.new
	mv carillon.cdx.json.new carillon.cdx.json

$(DENY):
	$(CARGO) install cargo-deny --version $(DENY_VERSION) --locked --root $(abspath $(@D)/..)

$(CYCLONEDX):
	$(CARGO) install cargo-cyclonedx --version $(CYCLONEDX_VERSION) --locked --root $(abspath $(@D)/..)

bench: ## Throughput against a sink in another process, beside a bare client loop
	$(CARGO) bench --locked --bench throughput

bench-production: ## The same on RabbitMQ and Redis of its own, and beside a bare consumer
	tests/services/install.sh
	$(CARGO) bench --locked --bench throughput -- --backend production

bench-audit: ## Deliveries while the audit log's store is full, slow or gone, beside one that is well
	tests/services/install.sh
	$(CARGO) bench --locked --bench throughput -- --audit
	$(CARGO) bench --locked --bench throughput -- --audit --backend production

bench-telemetry: ## What being watched costs: scraped, and traced, beside neither
	tests/services/install.sh
	$(CARGO) bench --locked --bench throughput -- --telemetry
	$(CARGO) bench --locked --bench throughput -- --telemetry --backend production

bench-lanes: ## How well endpoints and tenants are kept apart, embedded and on RabbitMQ and Redis
	tests/services/install.sh
	$(CARGO) bench --locked --bench lanes -- --backend embedded
	$(CARGO) bench --locked --bench lanes -- --backend production

# A minute of each target is a first look; ten minutes are a run.
SECONDS_EACH ?= 60
fuzz: ## Fuzz what strangers send, SECONDS_EACH=60 for each target (nightly Rust and cargo-fuzz)
	@RUSTUP_AUTO_INSTALL=0 $(CARGO) +nightly fuzz --version > /dev/null 2>&1 || { echo "fuzzing needs: \
	rustup toolchain install nightly --profile minimal && cargo install cargo-fuzz --locked" >&2; exit 1; }
	@set -e; for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/corpus/$$target; \
		echo "== $$target"; \
		$(CARGO) +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(SECONDS_EACH) -timeout=10 -rss_limit_mb=1024 -dict=fuzz/words.dict \
			-print_final_stats=1; \
	done

schemathesis: $(SCHEMATHESIS) ## Hold the API against its description, embedded and on RabbitMQ and Redis (needs Python)
	$(CARGO) build --locked --bin carillon
	tests/schemathesis/run.sh embedded $(abspath $(SCHEMATHESIS)) --checks all
	tests/services/run.sh tests/schemathesis/run.sh production $(abspath $(SCHEMATHESIS)) --checks all

$(SCHEMATHESIS):
	python3 -m venv $(@D)/..
	$(@D)/pip install --quiet schemathesis==$(SCHEMATHESIS_VERSION)

openapi-lint: ## Lint docs/openapi.json (needs Node.js and the network)
	npx --yes @redocly/cli@$(REDOCLY_VERSION) lint docs/openapi.json

test-helm: ## The chart: rendered, validated, and run against RabbitMQ and Redis (needs Python, Node.js and the network)
	tests/helm/run.sh

test-rolling: ## Three replicas from the chart, replaced one by one under load: nothing lost, nothing twice
	tests/helm/run.sh rolling

test-deploy: ## Image, compose.yaml and workflows: linted, and run as far as that goes without an engine
	tests/deploy/run.sh

helm-docs: ## Write the values in helm/carillon/README.md and the schema of `config` again
	tests/helm/run.sh docs

compose-up: ## Carillon with RabbitMQ, Redis, Prometheus, Grafana and a receiver, in Docker
	docker/env.sh
	docker compose --file docker/compose.yaml up --build --detach --wait carillon receiver prometheus grafana
	@echo "http://127.0.0.1:8080 (console: ADMIN_TOKEN of docker/.env), :3000 (Grafana: admin, GRAFANA_PASSWORD), :9090, :15672"

compose-down: ## Stop it; what it holds stays in its volumes
	docker compose --file docker/compose.yaml down

dashboards: ## Write the chart's Grafana dashboards again from helm/dashboards.py
	python3 helm/dashboards.py

test-rules: ## Test alerts, recording rules, dashboards and the runbook (Prometheus's promtool, Python)
	tests/prometheus/run.sh

drill: ## Break a running Carillon on purpose, and see that a real Prometheus alerts; some ten minutes
	$(CARGO) build --locked --bin carillon
	tests/prometheus/run.sh --drill

build: ## Build the release binary: target/release/carillon
	$(CARGO) build --locked --release

docs: ## Write docs/configuration.md, docs/metrics.md and docs/openapi.json again from the sources
	$(CARGO) run --quiet --locked -- config reference > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md
	$(CARGO) run --quiet --locked -- metrics > docs/metrics.md.new
	mv docs/metrics.md.new docs/metrics.md
	$(CARGO) run --quiet --locked -- openapi > docs/openapi.json.new
	mv docs/openapi.json.new docs/openapi.json

man: ## Write the manual pages to target/man: `man -l target/man/carillon-serve.1`
	$(CARGO) run --quiet --locked --example man -- target/man

fmt: ## Format the sources
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml

clean: ## Remove what was built
	$(CARGO) clean

.PHONY: help demo demo-keep test test-browser lint audit sbom bench bench-production bench-audit bench-telemetry \
	bench-lanes fuzz schemathesis \
	openapi-lint test-helm test-rolling test-deploy helm-docs compose-up compose-down dashboards test-rules drill \
	build docs man fmt clean
