# Each target sets up .venv with the package and all its extras first, then does its work.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test slow check lint docs tutorials bench torture audit clean

demo: $(READY)
	$(BIN)/safemed-eval demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Whole trainings, workers that die, tutorials, the wheel in an environment of its own: what `make test` leaves out.
slow: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

# The site, in site/; to read it with search: python3 -m http.server -d site
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Executes the tutorials anew and stores their outputs, which the site shows.
tutorials: $(READY)
	$(BIN)/python docs/_build/execute.py

bench: $(READY)
	$(BIN)/python -m pip install --quiet --no-deps torchattacks
	$(BIN)/python benchmarks/certify.py
	$(BIN)/python benchmarks/pgd.py
	$(BIN)/python benchmarks/scaling.py
	mkdir -p runs
	$(BIN)/python benchmarks/sequential.py runs/votes.npz

# Kills commands, breaks the source, and writes reports/torture/README.md. Takes some hours; goes on where it was stopped.
torture: $(READY)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m torture

# Known vulnerabilities of what is installed. Needs the network. Strict, since a package that the service does not know
# would pass for a safe one; torch's wheels have a suffix that it does not know.
audit: $(READY)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/\(==[^+]*\)+.*/\1/' > $(VENV)/installed.txt
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/installed.txt

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[train,ray,dev,docs]'
	touch $(READY)

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache *.egg-info
