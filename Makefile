# Everything is done by the scripts; this file gives them names. See `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo llm test wheel lean bench quality fuzz sanitize torture mutants lint fmt doc deny ci clean-cache

# For `make fuzz`: how long each target runs.
FUZZ_SECONDS ?= 60

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## install what is missing, build, run the demo (output: target/demo)
	@scripts/demo.sh

llm: ## fetch a language model of 135 million parameters, fine-tune it, trace it (half an hour; output: target/llm)
	@scripts/llm.sh

test: ## install what is missing, build, run every test
	@scripts/test.sh

wheel: ## build the Python package that users install, optimised, and print its path
	@scripts/install-packages.sh bench >&2
	@scripts/python.sh wheel

lean: ## check that the default features need neither burn nor a GPU
	@scripts/install-packages.sh build
	@scripts/check-lean.sh

bench: ## measure scans beside the machine's limits and the peers (output: target/bench)
	@scripts/bench.sh

quality: ## judge rankings by retraining and by what was planted (output: target/quality)
	@scripts/quality.sh

fuzz: ## run every fuzz target for FUZZ_SECONDS (60)
	@scripts/fuzz.sh $(FUZZ_SECONDS)

sanitize: ## run the tests that reach unsafe code under the address sanitizer
	@scripts/sanitize.sh

torture: ## the long run: power cuts, kills, faults, crowds (TORTURE_MINUTES=30 to end early)
	@scripts/torture.sh

mutants: ## break the engine on purpose, and look whether a test notices
	@scripts/mutants.sh

fmt: ## format the code
	@cargo fmt

lint: ## formatting and clippy, warnings denied
	@scripts/install-packages.sh build
	@scripts/lint.sh

doc: ## build the documentation, warnings denied
	@scripts/install-packages.sh build
	@scripts/doc.sh

deny: ## check licences, sources and advisories of the dependencies
	@scripts/check-dependencies.sh

ci: ## everything that CI runs
	@.ci/run

clean-cache: ## remove all that was cached outside the checkout (RocksDB is then built anew)
	@scripts/clean-cache.sh
