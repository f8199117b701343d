# CLUSTER chooses the Kubernetes: local (the default: made on this machine, needs root), kind, or current (your own).
CLUSTER ?= local
export CLUSTER

PROFILE := --profile ci
RUN := cargo run --quiet $(PROFILE) --package mizuya-e2e --bin
CRD := crds/cache.mizuya.dev_cacheclusters.yaml
OPERATOR := cargo run --quiet $(PROFILE) --package mizuya-operator --

.PHONY: demo demo-down test cluster-up cluster-down kubeconfig images install generate fmt lint help

help: ## Say what there is to make.
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "%-14s %s\n", $$1, $$2 }'

demo: images ## Show Mizuya on a Kubernetes: install, make a cache, scale it under load.
	@$(RUN) demo -- show

demo-down: ## Remove what the demo made, and the cluster unless it is your own.
	@if [ "$(CLUSTER)" = current ]; then $(RUN) demo -- remove; else $(RUN) local-kubernetes -- down; fi

test: ## Run every test. A local cluster that is up is used and left up.
	@.ci/test

cluster-up: ## Make the cluster.
	@$(RUN) local-kubernetes -- up

cluster-down: ## Remove the cluster.
	@$(RUN) local-kubernetes -- down

kubeconfig: ## Print the path of the cluster's kubeconfig.
	@$(RUN) local-kubernetes -- kubeconfig

images: cluster-up ## Build the images of the node and the operator and give them to the cluster.
	@cargo build $(PROFILE) --package mizuya-node --package mizuya-operator
	@$(RUN) local-kubernetes -- build-images --load

install: images ## Install the operator of this tree.
	@$(RUN) demo -- install

generate: ## Write the files that are made from code: the CRD and the install manifests.
	@$(OPERATOR) crd > $(CRD).new && mv $(CRD).new $(CRD)
	@$(OPERATOR) manifests > manifests/install.yaml.new && mv manifests/install.yaml.new manifests/install.yaml
	@$(OPERATOR) manifests --without-crd > manifests/install/operator.yaml.new && \
		mv manifests/install/operator.yaml.new manifests/install/operator.yaml

fmt: ## Format the code.
	@cargo fmt --all

lint: ## Check format and lints.
	@cargo fmt --all --check
	@cargo clippy $(PROFILE) --workspace --all-targets -- --deny warnings
