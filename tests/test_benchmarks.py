"""What the benchmarks measure, at tiny sizes and on a played GPU: piece by piece, and they go on after a stop."""

import os
import subprocess
import sys
import sysconfig
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gpu import machine_with_gpu

from vgglab import __main__, data
from vgglab.course.experiments import networks, registry, runner
from vgglab.training.recipe import Recipe

ROOT = Path(__file__).parent.parent
TINY = Recipe(width=1 / 32, size=32, batch_norm=True, epochs=1, batch_size=20)
MISSING = ("d2l", "pandas", "IPython", "ipywidgets", "matplotlib", "matplotlib_inline", "nbformat", "platformdirs")


class Stopped(Exception):
    pass


class Calls(list):
    """Notes the calls of a function, and stops it in place of the one after so many."""

    def of(self, function, until=None):
        def noted(*args, **kwargs):
            if len(self) == until:
                raise Stopped
            self.append(args)
            return function(*args, **kwargs)

        return noted


@pytest.fixture
def noise(random_images, monkeypatch):
    """A small data set that is there under every name."""
    dataset = data.Splits("noise", random_images[:40], random_images[40:60])
    monkeypatch.setattr(data, "load", lambda name="auto": dataset)
    return dataset


@pytest.fixture
def gpu(noise, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    with machine_with_gpu(monkeypatch):
        yield


def goes_on(monkeypatch, module, name, measure, stop):
    """Hold that measure, stopped after so many calls of a function, makes the others when called again, each once."""
    function, made = getattr(module, name), []
    for until in (stop, None, None):
        calls = Calls()
        monkeypatch.setattr(module, name, calls.of(function, until))
        with pytest.raises(Stopped) if until else nullcontext():
            measure()
        made.append(len(calls))
    assert made[0] == stop and made[1] > 0 and made[2] == 0
    return sum(made), calls


def measures_another_gpu_anew(monkeypatch, measure, total, calls):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "another GPU")
    measure()
    assert len(calls) == total


def test_accuracies_are_recorded_seed_by_seed(gpu, monkeypatch, tmp_path):
    import accuracy

    targets = {"10 % in 1 s": TINY, "20 % in 2 s": replace(TINY, width=1 / 16)}
    monkeypatch.setitem(accuracy.TARGETS, "gpu", targets)
    arguments = ["gpu", "--seeds", "2", "--records", str(tmp_path)]
    total, calls = goes_on(monkeypatch, accuracy, "run", lambda: accuracy.main(arguments), stop=3)
    measures_another_gpu_anew(monkeypatch, lambda: accuracy.main(arguments), total, calls)
    record = accuracy.common.read(tmp_path / "accuracy-gpu.json")
    assert list(record) == ["10 % in 1 s, bfloat16", "20 % in 2 s, bfloat16"]
    for target in record.values():
        assert [run["seed"] for run in target["runs"]] == [0, 1]
        assert (target["environment"]["device"], target["environment"]["torch"]) == ("another GPU", torch.__version__)


def test_coverage_is_recorded_network_by_network(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import timm_coverage as coverage

    arguments = ["--records", str(tmp_path), "--names", "test_resnet", "test_vit", "tnt_s_patch16_224"]
    goes_on(monkeypatch, coverage, "looked_at", lambda: coverage.main(arguments), stop=1)
    record = coverage.common.read(tmp_path / "coverage.json")
    assert (record["of_model"], record["ledger"]) == ({"whole": 2, "partly": 1}, {"equal": 3})
    assert list(record["not answered"].values()) == [["tnt_s_patch16_224"]] and len(coverage.NAMES) == 490


@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:the loss stands at ln")
def test_the_book_is_compared_with_row_by_row(gpu, monkeypatch, tmp_path, capsys):
    pytest.importorskip("d2l")
    import bench
    import sides

    monkeypatch.chdir(tmp_path)  # the book's data module changes the folder
    monkeypatch.setattr(sides, "BATCH", 8)
    monkeypatch.setattr(sides, "MATRIX", {"cuda": 16})
    few = {"size": 32, "batches": 4}
    loop = {"name": "quarter", **few}

    def rows(precision):
        return {
            "data, 28 pixels": (("data_d2l", few), ("data_ours", few)),
            f"loop, 224 pixels, quarter network, {precision}": (
                ("loop_d2l", loop), ("loop_ours", {**loop, "precision": precision}),
            ),
        }  # fmt: skip

    monkeypatch.setattr(bench, "GPU", rows)
    monkeypatch.setattr(bench, "run", lambda name, arguments: getattr(sides, name)(**arguments))
    arguments = ["gpu", "--rounds", "1", "--records", str(tmp_path)]
    total, calls = goes_on(monkeypatch, bench, "compare", lambda: bench.main(arguments), stop=1)
    measures_another_gpu_anew(monkeypatch, lambda: bench.main(arguments), total, calls)
    record = bench.common.read(tmp_path / "benchmark-gpu.json")
    assert list(record["comparisons"]) == list(rows("bfloat16")) and record["environment"]["device"] == "another GPU"
    assert len(record["share of the machine"]["loops"]) == 1
    assert "| data, 28 pixels |" in (tmp_path / "benchmark-gpu.md").read_text() in capsys.readouterr().out


def test_experiments_at_the_size_for_a_gpu_run_and_go_on(noise, monkeypatch, tmp_path, capsys):
    tiny = registry.Scale(
        recipe=TINY, train_images=20, test_images=10, seeds=1,
        plain=TINY, plain_images=(20, 10),
        photo=TINY, photo_images=10, photo_tests=(4, 2),
    )  # fmt: skip
    monkeypatch.setattr(registry, "GPU_EXPERIMENTS", registry.registry(tiny))
    monkeypatch.setattr(networks, "training_seconds", lambda network, device: 1.0)  # what takes long
    monkeypatch.setattr(networks, "_equal_width", lambda network, spend, target: 1 / 48)
    command = ["experiment", "all", "--size", "gpu", "--device", "cpu", "--records", str(tmp_path)]
    goes_on(monkeypatch, runner, "_train", lambda: __main__.main(command), stop=7)
    records = {path.name for path in tmp_path.iterdir()}
    assert records == {f"{name}-gpu.json" for name in registry.EXPERIMENTS}
    assert "S jittered, both against S jittered, dense" in capsys.readouterr().out


def test_all_of_it_starts_without_make_and_with_little_installed(tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in MISSING:
        (bare / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')")
    path = os.pathsep.join([str(bare), sysconfig.get_path("purelib")])

    def start(*arguments):
        """Python without what is installed for development, such as vgglab itself."""
        command, environment = [sys.executable, "-S", *arguments], {**os.environ, "PYTHONPATH": path}
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)

    done = start("benchmarks/accuracy.py", "--help")
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr
    (bare / "matplotlib.py").unlink()  # what is in vgglab.course needs it
    done = start("-m", "vgglab", "experiment", "--help")
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr
    done = start("benchmarks/bench.py", "gpu" if torch.cuda.is_available() else "cpu")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "d2l is not installed" in done.stderr and "pip install --no-deps d2l==1.0.3" in done.stderr
