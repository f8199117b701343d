# CLUSTER chooses the Kubernetes: local (the default: made on this machine, needs root), kind, or current (your own).
CLUSTER ?= local
export CLUSTER

PROFILE := --profile ci
# Always the whole workspace: with a part of it cargo would choose other features of libraries, and build those twice.
BUILD := cargo build $(PROFILE) --workspace --bins
BIN := $${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-gnu/ci
CRD := crds/cache.mizuya.dev_cacheclusters.yaml

.PHONY: build demo demo-down test sim sim-porcupine sim-mutants cluster-up cluster-down kubeconfig images install generate chaos kind-check bench bench-pods fmt lint help

help: ## Say what there is to make.
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "%-14s %s\n", $$1, $$2 }'

demo: images ## Show Mizuya on a Kubernetes: install, make a cache, scale it under load.
	@$(BIN)/demo show

demo-down: build ## Remove what the demo made, and the cluster unless it is your own.
	@if [ "$(CLUSTER)" = current ]; then $(BIN)/demo remove; else $(BIN)/local-kubernetes down; fi

build: ## Build every program.
	@.ci/tools >&2
	@$(BUILD)

test: ## Run every test. A local cluster that is up is used and left up.
	@.ci/test

sim: ## Play 10,000 simulated histories. HISTORIES=n plays n; SEED=n replays one with a trace, KEY=k with that key's.
	@cargo test --quiet $(PROFILE) --workspace --test simulation -- --nocapture histories::

sim-porcupine: ## Let porcupine judge what must be linearizable, beside our own search. HISTORIES=n (3,000).
	@rm -f target/histories.jsonl
	@HISTORIES=$(or $(HISTORIES),3000) MIZUYA_RECORD=$(CURDIR)/target/histories.jsonl $(MAKE) --no-print-directory sim
	@cd node/simulation/porcupine && go run . < $(CURDIR)/target/histories.jsonl

sim-mutants: ## Show which wrong versions of the logic the simulation catches. ONLY=part,part plays those named so.
	@cargo test --quiet $(PROFILE) --workspace --test simulation -- --nocapture --include-ignored mutants::

cluster-up: build ## Make the cluster.
	@$(BIN)/local-kubernetes up

cluster-down: build ## Remove the cluster.
	@$(BIN)/local-kubernetes down

kubeconfig: build ## Print the path of the cluster's kubeconfig.
	@$(BIN)/local-kubernetes kubeconfig

images: cluster-up ## Build the images of the node and the operator and give them to the cluster.
	@$(BIN)/local-kubernetes build-images --load

install: images ## Install the operator of this tree.
	@$(BIN)/demo install

generate: build ## Write the files that are made from code: the CRD and the install manifests.
	@$(BIN)/mizuya-operator crd > $(CRD).new && mv $(CRD).new $(CRD)
	@$(BIN)/mizuya-operator manifests > manifests/install.yaml.new && mv manifests/install.yaml.new manifests/install.yaml
	@$(BIN)/mizuya-operator manifests --without-crd > manifests/install/operator.yaml.new && \
		mv manifests/install/operator.yaml.new manifests/install/operator.yaml

chaos: install ## Attack a cache for MINUTES (10) and check what it holds; SEED repeats the choices, ONLY=part of a fault's name.
	@$(BIN)/chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)")

kind-check: build ## Show that the demo runs on kind: build kind and its nodes, play the demo there, remove all of it.
	@$(BIN)/local-kubernetes kind-check

bench: ## Measure our node beside Redis and memcached. ROUNDS=n (7), ONLY=part of a row's name, JSON=1, PLOT=FILE.svg.
	@.ci/tools memcached >&2
	@$(BUILD)
	@$(BIN)/bench --rounds $(or $(ROUNDS),7) $(if $(ONLY),--only "$(ONLY)") $(if $(JSON),--json) \
		$(if $(PLOT),--plot "$(PLOT)")

bench-pods: install ## Measure how long answers of three pods take at a fixed rate, beside Redis. ROUNDS=n (7), ONLY=part of a rate.
	@$(BIN)/bench --pods --rounds $(or $(ROUNDS),7) $(if $(ONLY),--only "$(ONLY)")

fmt: ## Format the code.
	@cargo fmt --all

lint: ## Check format and lints.
	@cargo fmt --all --check
	@cargo clippy $(PROFILE) --workspace --all-targets -- --deny warnings
	@# These need a cluster and are not among "all targets".
	@cargo clippy $(PROFILE) --workspace --test scenarios --test disruptions -- --deny warnings
