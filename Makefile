# Two commands: `make demo` runs the main job on real input, `make test` passes the tests. Both set everything up themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --disable-pip-version-check --no-compile -q -c constraints.txt
export RETRODICT_DATA ?= $(wildcard ../shared/data)

.PHONY: help demo test check docs interop benchmarks clean

help:  ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

# The marker is newer than the files that decide what is installed, so that a second run starts at once.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e ".[all,dev]"
	touch $@

demo: $(VENV)/.installed  ## label real game video of which a tenth carries actions, train policies on it, play, and show a report
	$(BIN)/python examples/main_job.py --out demo

# MuJoCo draws through EGL, which no wheel brings.
$(VENV)/.libraries: | $(VENV)/.installed
	ldconfig -p | grep -q libEGL.so.1 && ldconfig -p | grep -q libOpenGL.so.0 || \
	  { apt-get update -qq && apt-get install -qq -y --no-install-recommends libegl1 libgl1-mesa-dri libopengl0; }
	touch $@

test: $(VENV)/.installed $(VENV)/.libraries check  ## style, types, floors and tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

check: $(VENV)/.installed  ## style, types and floors only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed  ## the documentation, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

interop: $(VENV)/.installed  ## what we write opens in LeRobot and Minari, and the other way round (own environment, minutes)
	bash interop/run.sh
	$(BIN)/python interop/minari_check.py

benchmarks: $(VENV)/.installed interop  ## side by side with peers, on a quiet machine; writes results/benchmarks/
	$(PIP) "jax>=0.10,<0.11" pylance torchcde
	for each in window_reading recurrent_scan chaos_generation rendering mode_curves small_networks; do $(BIN)/python benchmarks/$$each.py || exit 1; done

clean:  ## remove environments and what the demo made
	rm -rf $(VENV) .venv-* demo site build
