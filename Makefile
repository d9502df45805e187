# Two commands set everything up and run: `make bake` and `make test`. All else is here to help.
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: bake test lint unit node test-vm vm interruption bench clean

bake: $(VENV)/.sandbox ## Bake a hardened image in the sandbox
	$(BIN)/cisdriver bake --level 1 --sandbox

test: unit node ## Pass all tests

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	# ansible-lint installs the collection into its home and would go on reading that copy
	rm -rf $(VENV)/lint
	ANSIBLE_HOME=$(CURDIR)/$(VENV)/lint $(BIN)/ansible-lint --offline
	shellcheck -x -S warning tools/*.sh .ci/run tests/rules/stub-rpm roles/image/files/*.sh roles/workloads/templates/helpers.sh driver/cisdriver/sandbox/standin/*.sh

unit: $(VENV)/.dev ## Seconds: no machine needed
	$(BIN)/pytest -q -n $(JOBS) tests -m 'not node and not vm'

node: $(VENV)/.dev ## On stand-in nodes: kinds, rules, sandbox end to end, one Molecule scenario per role
	$(BIN)/python -m cisdriver.sandbox.node build
	$(BIN)/python -m cisdriver.sandbox.node build --state ami
	$(BIN)/pytest -q -n $(JOBS) --dist loadfile --durations 10 tests -m node

test-vm: $(VENV)/.dev ## Harden, reboot and work on a kernel of its own; interrupt hardening at forty points
	$(BIN)/python -m cisdriver.sandbox.node build
	$(BIN)/python -m cisdriver.sandbox.vm build --state ami
	$(MAKE) --no-print-directory -j 2 --output-sync=target vm interruption

vm: $(VENV)/.dev
	$(BIN)/pytest -v -x --durations 5 tests/vm

interruption: $(VENV)/.dev
	$(BIN)/pytest -v --durations 5 tests/interruption

bench: $(VENV)/.dev ## What hardening and auditing cost
	$(BIN)/python tools/bench.py

$(VENV)/.sandbox: pyproject.toml constraints.txt tools/setup.sh
	tools/setup.sh $(VENV) sandbox
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt tools/setup.sh
	tools/setup.sh $(VENV) sandbox,dev
	touch $@ $(VENV)/.sandbox

clean:
	rm -rf $(VENV) build dist .cisdriver
