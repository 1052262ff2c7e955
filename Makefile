# Two commands set everything up: `make demo` and `make test`. `make docs` builds the documentation into site/.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt

.PHONY: demo test test-portable lint docs bench clean

demo: $(VENV)/.installed
	$(BIN)/dataloupe demo

# Compiled once: some machines forbid Python to keep what it compiles, and a run starts a few hundred processes.
# Two processes on two cores: one thread each, also in what the tests start. test-portable has as many as there are.
test: $(VENV)/.dev lint
	$(BIN)/python -m compileall -q engine dashboard benchmarks
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# What must not depend on the processor, as one without AVX-512 computes it.
test-portable: $(VENV)/.dev
	OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
		$(BIN)/python -m pytest -m determinism -n 2 --dist loadfile --ignore tests/browser

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.bench
	for name in featurise lds scaling datamodels lasso bank page sessions live brittle modeldiff uploads \
		unlearning judging labels robustness; do $(BIN)/python -m benchmarks.$$name --json --save || exit; done

# torch goes first: with it in place, no other package pulls in another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "== Installing into $(VENV), once, in a few minutes. First PyTorch: about 200 MB, or some GB with CUDA"
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	@echo "== Now the other packages: about 60, 0.8 GB on disk"
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "== Installing the tools for tests: about 85 packages more, 1.2 GB on disk"
	$(PIP) -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	@echo "== Installing the tools for the documentation: about 20 small packages"
	$(PIP) -e ".[docs]"
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	@echo "== Installing what the benchmarks compare with"
	$(PIP) -e ".[bench]"
	$(PIP) --no-deps kronfluence
	touch $@

clean:
	rm -rf $(VENV) site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
