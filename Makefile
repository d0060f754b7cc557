# make lab     set up, then open the course in JupyterLab
# make test    set up, then run every test, the notebooks' included
# make run     set up, then execute the course without a browser; pages and a summary in build/
# make pages   build the course as a site from the stored outputs, in build/site/
# make slides  build a deck of slides for each lesson, in build/slides/
# make buttons REPOSITORY=owner/name   put Colab and Binder buttons into the README and the lessons
# make refresh execute the notebooks and store their outputs; a second run changes no byte
# make bench   hold the training against Dive into Deep Learning's, a quarter of an hour; into records/
# make accuracy     time the training to 91, 93 and 94 % on a CPU, an hour; into records/
# make bench-gpu    both on a GPU
# make experiments  repeat the paper's comparisons on a CPU, an hour; what records/ has is not run again
# make experiments-gpu  the same on a GPU, larger
# make lint    check the style of the code

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
export JUPYTER_PREFER_ENV_PATH = 1

.PHONY: lab test run pages slides buttons refresh bench accuracy bench-gpu experiments experiments-gpu lint clean

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=notebooks $(LAB_ARGS)

test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --nbval --nbval-current-env tests notebooks

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

clean:
	rm -rf .venv build

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14) and f"Python 3.11, 3.12 or 3.13 is needed, not {v[0]}.{v[1]}: make PYTHON=python3.12")'
	@echo "Setting up .venv once (about 6 GB with PyTorch's CUDA libraries, a few minutes) ..."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --constraint constraints.txt --group test --group pages --editable .
	$(BIN)/pip install --quiet --constraint constraints.txt --group compare --no-deps
	$(BIN)/jupyter labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements 2>/dev/null
	touch $(READY)
