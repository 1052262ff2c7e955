# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: demo test test-portable lint bench clean

demo: $(VENV)/.installed
	$(BIN)/dataloupe demo

test: $(VENV)/.dev lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# What must not depend on the processor, as one without AVX-512 computes it.
test-portable: $(VENV)/.dev
	OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
		$(BIN)/python -m pytest -m determinism -n 2 --dist loadfile --ignore tests/browser

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	for name in featurise lds scaling datamodels lasso bank page sessions live brittle modeldiff uploads \
		unlearning; do $(BIN)/python -m benchmarks.$$name --json --save || exit; done

# torch goes first: with it in place, no other package pulls in another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) -e ".[dev]"
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) -e ".[bench]"
	$(PIP) --no-deps kronfluence
	touch $@

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
