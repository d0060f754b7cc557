"""How long until a test accuracy is reached: python benchmarks/accuracy.py cpu|gpu [--seeds N] [TARGET ...].

Each seed is recorded as soon as it has run. Called again, it runs what the record lacks of this machine's.
"""

import argparse
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import common
import torch

from vgglab import data, machine, training

CPU, GPU = training.RECIPES["cpu"], training.RECIPES["gpu"]
TARGETS = {
    "cpu": {
        "91 % in 30 s": replace(CPU, width=0.125, epochs=3, batch_size=192),
        "93 % in 150 s": CPU,
        "94 % in 600 s": replace(CPU, width=0.5, epochs=11),
    },
    "gpu": {
        "93 % in 3 s": replace(GPU, width=0.25, epochs=8),
        "94 % in 8 s": replace(GPU, width=0.5, epochs=12),
        "95 % in 60 s": GPU,
    },
}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", choices=TARGETS)
    parser.add_argument("targets", nargs="*", help="the first words of some targets, such as 91 (default: all)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--precision", default="auto", choices=machine.PRECISIONS)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--records", type=Path, default=common.OWN, help="the folder to write to; default: %(default)s")
    options = parser.parse_args(arguments)
    if options.device == "gpu" and not torch.cuda.is_available():
        sys.exit("accuracy.py gpu needs a GPU")
    device = machine.find_device("cuda" if options.device == "gpu" else "cpu")
    environment = machine.environment(device, machine.find_precision(options.precision, device))
    dataset = data.load("fashion-mnist")
    path = options.records / f"accuracy-{options.device}.json"
    for name, recipe in TARGETS[options.device].items():
        if options.targets and name.split()[0] not in options.targets:
            continue
        record = common.read(path)
        title = f"{name}, {environment['precision']}{', compiled' if options.compile else ''}"
        runs = known_runs(record.get(title), recipe, environment)
        for seed in sorted(set(range(options.seeds)) - {run["seed"] for run in runs}):
            runs.append(run(recipe, dataset, device, options, seed))
            record[title] = summary(recipe, runs)
            common.write(path, record)
        print(title, {key: record[title][key] for key in ("accuracy", "seconds")}, flush=True)


def known_runs(target, recipe, environment):
    """The runs of a target's record, where they are of this recipe on this machine."""
    if target and target["recipe"] == asdict(recipe) and common.on_this_machine(target["environment"], environment):
        return [{**run, "environment": target["environment"]} for run in target["runs"]]
    return []


def run(recipe, dataset, device, options, seed):
    """One training from nothing: the test accuracy, the seconds of training, and those of all, tests included."""
    start = time.perf_counter()
    history = training.fit(
        recipe.model(seed=seed), dataset, recipe=recipe, device=device, precision=options.precision,
        compile=options.compile, seed=seed, progress=False,
    )  # fmt: skip
    common.synchronize()
    result = {
        "seed": seed,
        "accuracy": history.accuracy,
        "seconds": history.epochs[-1]["seconds"],
        "first_epoch": history.epochs[0]["seconds"],
        "all_seconds": time.perf_counter() - start,
        "epochs": [[round(row["seconds"], 2), row["test_accuracy"]] for row in history.epochs],
        "environment": history.environment,
    }
    print(f"  seed {seed}: {result['accuracy']:.4f} in {result['seconds']:.1f} s", file=sys.stderr, flush=True)
    return result


def summary(recipe, runs):
    """The means over the seeds, what was run, and each run."""
    return {
        "accuracy": statistics.mean(run["accuracy"] for run in runs),
        "lowest": min(run["accuracy"] for run in runs),
        "seconds": statistics.mean(run["seconds"] for run in runs),
        "all_seconds": statistics.mean(run["all_seconds"] for run in runs),
        "recipe": asdict(recipe),
        "environment": runs[0]["environment"],
        "runs": [{name: value for name, value in run.items() if name != "environment"} for run in runs],
    }


if __name__ == "__main__":
    main()
