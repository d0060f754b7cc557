"""Runs the networks of an experiment and records each run as soon as it is finished; what is recorded, stays."""

import hashlib
import json
import math
import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from vgglab import _checks as checks
from vgglab import data, machine
from vgglab._checks import Count, FilePath, checked
from vgglab._files import write_text
from vgglab.course.experiments import records
from vgglab.course.experiments.networks import FACTS, MEASURES, Network, images_tested, measure
from vgglab.course.experiments.records import UNUSED, Run, load_record, record_path
from vgglab.course.experiments.registry import EXPERIMENTS, Experiment, find_experiment
from vgglab.data import Splits
from vgglab.training import Recipe, fit

MACS_PER_SECOND = {"cpu": 5e10, "cuda": 3e13}  # two cores with bfloat16 at width 1/8; a data centre's GPU, a guess
BACKWARD = 2  # a backward pass costs two forward passes
Content = dict[str, Any]
Result = TypeVar("Result")


@checked
def run(
    experiment: Experiment,
    splits: Splits,
    path: FilePath,
    *,
    seeds: Count | None = None,
    device: str | torch.device = "auto",
) -> Content:
    """Train what the record at path lacks of an experiment, append run by run, and return the file's content.

    seeds (their number) is the experiment's where None. Seed by seed the training images are drawn anew from
    splits.train, the same for all networks, so that differences are paired; the test images are the first of
    splits.test. A run that another record has, in the folder or where records are looked for, is copied and not
    trained again; one whose configuration is no longer the experiment's stays in the file and is not counted. A run
    that is stopped goes on at its last epoch. Raises ValueError for a file that is no record.
    """
    path, place = Path(path), machine.find_device(device)
    content = _begin(experiment, splits, path, place)
    wanted = [(seed, name) for seed in range(seeds or experiment.seeds) for name in experiment.networks]
    done = {(run["seed"], run["network"]) for run in content["runs"]}
    missing = [run for run in wanted if run not in done]
    known = _known(path) if missing else {}
    for seed, name in list(missing):
        found = known.get(_key(content["networks"][name], seed))
        if found:
            missing.remove((seed, name))
            _append(content, {**found, "network": name}, path)
    networks = _resolved(experiment.networks, content["facts"])
    seconds = estimate(experiment, networks, missing, place)
    print(
        f"{path.stem}: {len(missing)} of {len(wanted)} runs to do, about {seconds / 60:.1f} min on {place}", flush=True
    )
    for seed, name in missing:
        drawn = experiment.drawn(splits, seed)
        row = _train(experiment, networks[name], drawn, seed, place, _scratch(path, content["networks"][name], seed))
        _append(content, {"network": name, **row}, path)
        _remove_scratch(path)
        print(f"{path.stem}: seed {seed}, {name}: {_describe(row)}", flush=True)
    _remove_scratch(path)
    return content


def estimate(
    experiment: Experiment, networks: dict[str, Network], runs: list[tuple[int, str]], device: torch.device
) -> float:
    """Return about how many seconds runs, a list of (seed, name), take: from multiply-adds, at a typical speed."""
    macs = 0.0
    for name, network in networks.items():
        count = sum(name == other for _, other in runs)
        cuts = network.photographs.cuts if network.photographs else 1
        forward: float = (
            network.recipe.epochs * cuts * ((1 + BACKWARD) * experiment.train_images + experiment.test_images)
        )
        forward += experiment.test_images * images_tested(experiment.measure, network)
        forward += network.warm_start * network.recipe.epochs * (1 + BACKWARD) * experiment.train_images / 2
        macs += count and count * forward * network.ledger().macs
    return macs / MACS_PER_SECOND["cuda" if device.type == "cuda" else "cpu"]


def _begin(experiment: Experiment, splits: Splits, path: Path, device: torch.device) -> Content:
    """The content of the record, with what the experiment measures beside its runs."""
    data = f"{splits.name}, {len(splits.train)} + {len(splits.test)} images, MD5 {splits.train.checksum()}"
    before = records.read(path) or {"facts": {}, "networks": {}, "runs": []}
    asked = _digest({name: _deciding(network.configuration()) for name, network in experiment.networks.items()})
    facts = before["facts"]
    if experiment.facts and facts.get("of") != asked:
        facts = {
            "of": asked,
            "machine": machine.environment(device, machine.find_precision("auto", device)),
            **_quietly(lambda: FACTS[experiment.facts or ""](experiment.networks, device)),
        }
    shared = {
        "train_images": min(experiment.train_images, len(splits.train)),
        "test_images": min(experiment.test_images, len(splits.test)),
        "measure": experiment.measure,
        "data": data,
    }
    networks = {
        name: _plain({**network.configuration(), **shared})
        for name, network in _resolved(experiment.networks, facts).items()
    }
    content: Content = {"data": data, "facts": facts, "networks": networks, "runs": []}
    unused = []
    for run in [*before["runs"], *before.get(UNUSED, ())]:
        configuration = run.pop("configuration", None) or before["networks"][run["network"]]
        if run["network"] in networks and _deciding(configuration) == _deciding(networks[run["network"]]):
            content["runs"].append(run)
        else:
            unused.append({**run, "configuration": configuration})
    content |= {UNUSED: unused} if unused else {}
    _write(content, path)
    return content


def _deciding(configuration: Content) -> Content:
    """A configuration without what its recipe has by default, so that a field that Recipe gains changes no key."""
    default = asdict(Recipe())
    recipe = {name: value for name, value in configuration["recipe"].items() if default.get(name, ...) != value}
    return {**configuration, "recipe": recipe}


def _resolved(networks: dict[str, Network], facts: dict[str, Any]) -> dict[str, Network]:
    """The networks with what was chosen for their recipes."""
    chosen = facts.get("chosen", {})
    return {
        name: replace(network, recipe=replace(network.recipe, **chosen.get(name, {})))
        for name, network in networks.items()
    }


def _known(path: Path) -> dict[str, Run]:
    """The runs of all other records that can be found, by their key; other files are passed over."""
    runs: dict[str, Run] = {}
    for other in {file for folder in (path.parent, *records.folders()) for file in folder.glob("*.json")} - {path}:
        try:
            content = records.read(other) or {"runs": []}
        except ValueError:
            continue
        runs |= {_key(content["networks"][run["network"]], run["seed"]): run for run in content["runs"]}
    return runs


def _train(
    experiment: Experiment, network: Network, splits: Splits, seed: int, device: torch.device, scratch: Path
) -> Run:
    """One run, as it is recorded."""
    ledger = network.ledger()
    row = {
        "seed": seed,
        "parameters": ledger.parameters,
        "macs": ledger.macs,
        "activations": ledger.activations,
        "machine": machine.environment(device, machine.find_precision("auto", device)),
    }
    try:
        result = _quietly(lambda: _fit_and_measure(experiment, network, splits, seed, device, scratch))
    except FloatingPointError as error:
        classes = len(splits.train.classes)
        guessed = dict.fromkeys(MEASURES[experiment.measure], 1 / classes)
        result = {"epochs": [], "diverged": str(error), "results": guessed, "learned": False, "seconds": 0.0}
    return row | _rounded(result)


def _fit_and_measure(
    experiment: Experiment, network: Network, splits: Splits, seed: int, device: torch.device, scratch: Path
) -> dict[str, Any]:
    model = network.warm_model(splits, seed, device)
    seen = network.seen(splits, seed)
    history = fit(model, seen, recipe=network.recipe, seed=seed, device=device, checkpoint=scratch, progress=False)
    start = time.perf_counter()
    results = measure(experiment.measure, network, model, history, splits.test)
    last = history.epochs[-1]
    return {
        "epochs": history.epochs,
        "results": results,
        "learned": last["train_loss"] < 0.99 * math.log(len(splits.train.classes)),
        "seconds": last["seconds"],
        "testing_seconds": time.perf_counter() - start,
        "images_per_second": round(len(seen.train) * len(history.epochs) / last["seconds"]),
    }


def _quietly(work: Callable[[], Result]) -> Result:
    """What work returns, without the warning that nothing is learned: the record says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the loss stands at ln")
        return work()


def _describe(row: Run) -> str:
    if "diverged" in row:
        return row["diverged"]
    results = ", ".join(f"{name} {value:.2%}" for name, value in row["results"].items())
    return f"{results} in {row['seconds']:.0f} s"


def _append(content: Content, row: Run, path: Path) -> None:
    order = list(content["networks"])
    content["runs"].append(row)
    content["runs"].sort(key=lambda run: (run["seed"], order.index(run["network"])))
    _write(content, path)


def _write(content: Content, path: Path) -> None:
    """Write the record, one run on a line."""
    head = json.dumps({name: value for name, value in content.items() if name != "runs"}, indent=1)
    runs = ",\n  ".join(json.dumps(run) for run in content["runs"])
    write_text(path, f'{head[:-2]},\n "runs": [\n  {runs}\n ]\n}}\n')


def _scratch(path: Path, configuration: Content, seed: int) -> Path:
    return path.with_name(f"{path.stem}.{_key(configuration, seed)[:8]}.scratch")


def _remove_scratch(path: Path) -> None:
    """Remove the checkpoints beside the record, and what a killed runner left half written."""
    for pattern in (f"{path.stem}.*.scratch*", f"{path.name}*.part"):
        for file in path.parent.glob(pattern):
            file.unlink()


def _key(configuration: Content, seed: int) -> str:
    """What two equal runs have in common."""
    return _digest([_deciding(configuration), seed])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """A value as it comes back from JSON, where a tuple is a list."""
    return json.loads(json.dumps(value))


def _rounded(value: Any) -> Any:
    """The same with every number rounded to five digits after the point."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 5) if isinstance(value, float) else value


def add_experiment(commands: Any) -> None:
    """Add the command "experiment" to the subparsers of python -m vgglab."""
    parser = commands.add_parser(
        "experiment",
        help="repeat an experiment of the paper and record it",
        description="Train what the record of an experiment lacks and write it to NAME.json, or NAME-gpu.json. Stopped "
        "at any time and called again, it goes on where it stopped.",
    )
    parser.add_argument("name", choices=[*EXPERIMENTS, "all"], help="which experiment")
    parser.add_argument("--seeds", type=int, help="how many runs of each network; default: the experiment's")
    parser.add_argument(
        "--size", default="cpu", choices=records.SIZES, help="small for a CPU (the default), large for a GPU"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto (the default)")
    parser.add_argument("--records", type=Path, default=records.OWN, help="their folder; default: %(default)s")
    parser.set_defaults(run=_command)


def _command(options: Namespace) -> None:
    """Run one experiment or all, and print what each pair shows."""
    if options.seeds is not None:
        checks.integer("seeds", options.seeds, at_least=1)
    dataset = data.load("fashion-mnist")
    for name in EXPERIMENTS if options.name == "all" else [options.name]:
        experiment = find_experiment(name, options.size)
        path = record_path(name, options.size, options.records)
        run(experiment, dataset, path, seeds=options.seeds, device=options.device)
        record = load_record(name, options.size, options.records)
        for a, b in experiment.pairs:
            print(f"{a} against {b}: {record.compare(a, b).verdict}")
