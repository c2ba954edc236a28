# make demo   set up .venv and run the main job on the default backbone
# make test   lint, types, tests: what CI runs
# make bench  the measured ratios, one run
# make gpu    every GPU test and benchmark, writes profiles/measured/<gpu>.csv
# make docs   the generated pages; make costs   the cost table
# make learn  what the advisor learned from the shipped results; make audit   how good it is, docs/reference/audit.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test bench gpu docs costs learn audit clean

$(BIN)/luma: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $(BIN)/luma

$(VENV)/dev: pyproject.toml $(BIN)/luma
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(VENV)/dev

demo: $(BIN)/luma
	$(BIN)/luma profile convnext_b --res 512 1024 --device cpu
	$(BIN)/luma recommend --budget 200gflops

test: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

bench: $(VENV)/dev
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/heads.py
	$(BIN)/python benchmarks/moe.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/recommend.py

gpu: $(VENV)/dev
	$(BIN)/python benchmarks/gpu.py

docs: $(VENV)/dev
	$(BIN)/python -m luma_cli.backbone.coverage
	$(BIN)/python docs/make.py

costs: $(VENV)/dev
	$(BIN)/python -m luma_cli.measure.cost_table

learn: $(VENV)/dev
	$(BIN)/python -m luma_cli.accuracy.fit profiles/accuracy.toml

audit: $(VENV)/dev
	$(BIN)/python docs/audit.py

clean:
	rm -rf $(VENV) dist build
