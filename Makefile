# Every target works as the first command on a machine with python3.11, make and a C++ compiler.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PYTHONUNBUFFERED := 1
# Without what images need, which nobody asks about, and without AMX (docs/decisions/031).
LLAMA_CPP := CMAKE_ARGS="-DLLAVA_BUILD=OFF $(CMAKE_ARGS)" CXXFLAGS="-U__AMX_INT8__ $(CXXFLAGS)"

.PHONY: run test check bench faults distributed reference install lock clean

run: $(READY)  ## one simulated day of 50 agents, decided by real models over a real queue
	$(BIN)/uptier models pull
	$(BIN)/uptier models prepare
	$(BIN)/uptier simulate

test: $(READY)  ## all tests: unit, integration, faults
	$(BIN)/uptier models pull --profile tiny
	$(BIN)/uptier models prepare --profile tiny
	$(BIN)/python -m pytest -m "not model" --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest -m model

check: $(READY)  ## style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## Uptier's overhead beside Celery's own
	$(BIN)/python -m benchmarks.overhead

faults: $(READY)  ## injected faults, about 2 hours, then an hour of storm on the engine; only=1,5 rounds=3 json=FILE narrow it and keep figures
	$(BIN)/python -m tests.faults $(if $(only),--only $(only)) $(if $(rounds),--rounds $(rounds)) \
		$(if $(seed),--seed $(seed)) $(if $(json),--json $(json))
	$(if $(only),,$(BIN)/python -m tests.faults.engine_storm)

distributed: $(READY)  ## integration tests across two hosts in network namespaces, as root; args="-x ..." narrow it
	$(BIN)/python -m tests.distributed $(args)

reference: $(READY)  ## docs/reference, written anew from the code
	$(BIN)/python -m cli.reference

install: $(READY)

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing from the lock; llama.cpp is built from source once, about 4 minutes."
	$(LLAMA_CPP) $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(READY)

lock: $(READY)  ## resolve dependencies anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --upgrade -q -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
