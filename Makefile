# The same commands for people and for continuous integration.
PYTHON ?= python3.11
BIN := .venv/bin
RUN := runs/demo
# Two processes of one thread each: threads that wait for each other cost more than they bring where something else runs,
# too. The tests of a file, which share what they build, stay together; files in their own order, since one of few tests
# may be the longest.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 15
CONFIG := configs/4pe_resize/multitask.py

.PHONY: setup demo test parity lint

setup: .venv/.installed

# A stamp, so that a second run reuses the environment unless the list of packages changed. torch comes first and alone: pip takes a
# CPU wheel where its configuration names a place that has one, else the one with CUDA, which is gigabytes more.
.venv/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet 'torch==2.13.0'
	$(BIN)/python -m pip install --quiet --editable '.[compile,train,test]'
	touch $@

demo: setup
	$(BIN)/python -m train.data.generate --out $(RUN)/scenes --count 6 --seed 7 --only-images
	PATH="$(CURDIR)/$(BIN):$$PATH" bash tools/quanti_training_2step_fusion_bn.sh --config $(CONFIG) --pipeline-test --out $(RUN)
	$(BIN)/python -m runtime.infer --model $(RUN)/int-inference-export-last.so --images $(RUN)/scenes --out $(RUN)/infer
	@echo "Done. Overlays, masks and results.json: $(RUN)/infer   parity table: $(RUN)/verify.txt, $(RUN)/verify.json"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup lint
	$(PYTEST) -m "not matrix"

parity: setup
	$(PYTEST) tests/parity
