# make lab     set up, then open the course in JupyterLab
# make test    set up, then run every test, the notebooks' included
# make newcomer     execute the lessons as a newcomer has them: installed, alone, without data or network, AVX2 at most
# make run     set up, then execute the course without a browser; pages and a summary in build/
# make pages   build the course as a site from the stored outputs, in build/site/
# make slides  build a deck of slides for each lesson, in build/slides/
# make buttons REPOSITORY=owner/name   put Colab and Binder buttons into the README and the lessons
# make refresh execute the notebooks and store their outputs; a second run changes no byte
# make bench   hold the training against Dive into Deep Learning's, a quarter of an hour; into records/
# make accuracy     time the training to 91, 93 and 94 % on a CPU, an hour; into records/
# make bench-gpu    both on a GPU
# make experiments  repeat the paper's comparisons on a CPU, an hour; into records/, with the runs that are shipped
# make experiments-gpu  the same on a GPU, larger
#              Lessons read records/ before what is shipped; to ship, give these commands --records vgglab/course/experiments/records
# make lint    check the style and the types of the code
#
# The first of them sets up; with TORCH=cpu behind it, with PyTorch for the CPU alone.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
PIP := $(BIN)/pip install --quiet --constraint constraints.txt
SIZE := 6 GB on Linux, where PyTorch brings its CUDA libraries, or 2 GB with TORCH=cpu
export JUPYTER_PREFER_ENV_PATH = 1

ifeq ($(TORCH),cpu)
SIZE := 2 GB with PyTorch for the CPU alone
TORCH_WHEELS = $(PIP) --no-deps --index-url https://download.pytorch.org/whl/cpu torch torchvision
else ifneq ($(TORCH),)
$(error TORCH must be cpu, or left out, not $(TORCH))
endif

.PHONY: lab test newcomer run pages slides buttons refresh bench accuracy bench-gpu experiments experiments-gpu lint clean

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=notebooks $(LAB_ARGS)

test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --nbval --nbval-current-env tests notebooks

newcomer: $(READY)
	$(BIN)/python tools/newcomer.py

run: $(READY)
	$(BIN)/python tools/notebooks.py run
	$(BIN)/python -m vgglab train --out build/vgg

pages: $(READY)
	$(BIN)/python -m sphinx -q -W -b html -c docs . build/site
	@echo "open build/site/index.html"

slides: $(READY)
	$(BIN)/python tools/slides.py build/slides

buttons: $(READY)
	$(BIN)/python tools/buttons.py $(REPOSITORY)

refresh: $(READY)
	$(BIN)/python tools/notebooks.py refresh

bench: $(READY)
	$(BIN)/python benchmarks/bench.py cpu

accuracy: $(READY)
	$(BIN)/python benchmarks/accuracy.py cpu

bench-gpu: $(READY)
	$(BIN)/python benchmarks/bench.py gpu
	$(BIN)/python benchmarks/accuracy.py gpu --seeds 10 --compile

experiments: $(READY)
	$(BIN)/python -m vgglab experiment all

experiments-gpu: $(READY)
	$(BIN)/python -m vgglab experiment all --size gpu

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build

# Once, by one make at a time. A set-up that was cut off goes on; in a folder that was moved it begins anew, because
# the programs in .venv hold the path to their Python. TORCH_WHEELS come first: what is installed is not fetched again.
ifneq ($(shell test -x $(BIN)/python && cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

ifndef ALONE
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14) and f"Python 3.11, 3.12 or 3.13 is needed, not {v[0]}.{v[1]}: make PYTHON=python3.12")'
	@$(PYTHON) tools/alone.py $(MAKE) --no-print-directory ALONE=1 $(READY)
else
$(READY): pyproject.toml constraints.txt
	@echo "Setting up .venv (about $(SIZE), a few minutes) ..."
	@if ! grep -qsF '$(CURDIR)/.venv' $(BIN)/activate || ! test -x $(BIN)/python; then \
	  test ! -d .venv || echo "The .venv that is here was made for another folder, or was cut off: it is made anew."; \
	  $(PYTHON) -m venv --clear .venv; \
	fi
	$(BIN)/pip install --quiet "pip>=25.1"
	$(TORCH_WHEELS)
	$(PIP) --group test --group pages --editable ".[lab]"
	$(PIP) --group compare --no-deps
	$(BIN)/jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements 2>/dev/null
	@echo "$(CURDIR)" > $(READY)
endif
