"""Runs the networks of an experiment and records each run as soon as it is finished."""

import hashlib
import json
import math
import time
import warnings
from dataclasses import replace

from vgglab import _checks as checks
from vgglab import machine
from vgglab._files import write_text
from vgglab.course.experiments import records
from vgglab.course.experiments.networks import FACTS, MEASURES, images_tested, measure
from vgglab.training import fit

MACS_PER_SECOND = {"cpu": 5e10, "cuda": 3e13}  # two cores with bfloat16 at width 1/8; a data centre's GPU, a guess
BACKWARD = 2  # a backward pass costs two forward passes


def run(experiment, dataset, path, *, seeds=None, device="auto"):
    """Train what the record at path lacks of an experiment, append run by run, and return the file's content.

    seeds (their number) is the experiment's where None. Seed by seed the training images are drawn anew from
    dataset.train, the same for all networks, so that differences are paired; the test images are the first of
    dataset.test. A run that another record in the folder has is copied, not trained again, and one whose
    configuration is no longer the experiment's is dropped. A run that is stopped goes on at its last epoch. Raises
    ValueError for a file that is no record.
    """
    path, device = checks.path("path", path), machine.find_device(device)
    seeds = experiment.seeds if seeds is None else checks.integer("seeds", seeds, 1)
    content = _begin(experiment, dataset, path, device)
    wanted = [(seed, name) for seed in range(seeds) for name in experiment.networks]
    done = {(run["seed"], run["network"]) for run in content["runs"]}
    missing = [run for run in wanted if run not in done]
    known = _known(path) if missing else {}
    for seed, name in list(missing):
        found = known.get(_key(content["networks"][name], seed))
        if found:
            missing.remove((seed, name))
            _append(content, {**found, "network": name}, path)
    networks = _resolved(experiment.networks, content["facts"])
    seconds = estimate(experiment, networks, missing, device)
    print(
        f"{path.stem}: {len(missing)} of {len(wanted)} runs to do, about {seconds / 60:.1f} min on {device}", flush=True
    )
    for seed, name in missing:
        data = experiment.drawn(dataset, seed)
        row = _train(experiment, networks[name], data, seed, device, _scratch(path, content["networks"][name], seed))
        _append(content, {"network": name, **row}, path)
        _remove_scratch(path)
        print(f"{path.stem}: seed {seed}, {name}: {_describe(row)}", flush=True)
    _remove_scratch(path)
    return content


def estimate(experiment, networks, runs, device):
    """Return about how many seconds runs, a list of (seed, name), take: from multiply-adds, at a typical speed."""
    macs = 0
    for name, network in networks.items():
        count = sum(name == other for _, other in runs)
        cuts = network.photographs.cuts if network.photographs else 1
        forward = network.recipe.epochs * cuts * ((1 + BACKWARD) * experiment.train_images + experiment.test_images)
        forward += experiment.test_images * images_tested(experiment.measure, network)
        forward += network.warm_start * network.recipe.epochs * (1 + BACKWARD) * experiment.train_images / 2
        macs += count and count * forward * network.ledger().macs
    return macs / MACS_PER_SECOND["cuda" if device.type == "cuda" else "cpu"]


def _begin(experiment, dataset, path, device):
    """The content of the record, with what the experiment measures beside its runs; outdated runs are left out."""
    data = f"{dataset.name}, {len(dataset.train)} + {len(dataset.test)} images, MD5 {dataset.train.checksum()}"
    content = records.read(path) or {"data": data, "facts": {}, "networks": {}, "runs": []}
    asked = _digest({name: network.configuration() for name, network in experiment.networks.items()})
    facts = content["facts"]
    if experiment.facts and facts.get("of") != asked:
        facts = {
            "of": asked,
            "machine": machine.environment(device, machine.find_precision("auto", device)),
            **_quietly(lambda: FACTS[experiment.facts](experiment.networks, device)),
        }
    configurations = {
        name: _plain(
            {
                **network.configuration(),
                "train_images": min(experiment.train_images, len(dataset.train)),
                "test_images": min(experiment.test_images, len(dataset.test)),
                "measure": experiment.measure,
                "data": data,
            }
        )
        for name, network in _resolved(experiment.networks, facts).items()
    }
    before = content["networks"]
    runs = [
        run
        for run in content["runs"]
        if run["network"] in configurations and before[run["network"]] == configurations[run["network"]]
    ]
    content = {"data": data, "facts": facts, "networks": configurations, "runs": runs}
    _write(content, path)
    return content


def _resolved(networks, facts):
    """The networks with what was chosen for their recipes."""
    chosen = facts.get("chosen", {})
    return {
        name: replace(network, recipe=replace(network.recipe, **chosen.get(name, {})))
        for name, network in networks.items()
    }


def _known(path):
    """The runs of the other experiments' records in the folder of path, by their key; other files are passed over."""
    runs = {}
    for other in set(path.parent.glob("*.json")) - {path}:
        try:
            content = records.read(other)
        except ValueError:
            continue
        runs |= {_key(content["networks"][run["network"]], run["seed"]): run for run in content["runs"]}
    return runs


def _train(experiment, network, dataset, seed, device, scratch):
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
        result = _quietly(lambda: _fit_and_measure(experiment, network, dataset, seed, device, scratch))
    except FloatingPointError as error:
        classes = len(dataset.train.classes)
        guessed = dict.fromkeys(MEASURES[experiment.measure], 1 / classes)
        result = {"epochs": [], "diverged": str(error), "results": guessed, "learned": False, "seconds": 0.0}
    return row | _rounded(result)


def _fit_and_measure(experiment, network, dataset, seed, device, scratch):
    model = network.warm_model(dataset, seed, device)
    seen = network.seen(dataset, seed)
    history = fit(model, seen, recipe=network.recipe, seed=seed, device=device, checkpoint=scratch, progress=False)
    start = time.perf_counter()
    results = measure(experiment.measure, network, model, history, dataset.test)
    last = history.epochs[-1]
    return {
        "epochs": history.epochs,
        "results": results,
        "learned": last["train_loss"] < 0.99 * math.log(len(dataset.train.classes)),
        "seconds": last["seconds"],
        "testing_seconds": time.perf_counter() - start,
        "images_per_second": round(len(seen.train) * len(history.epochs) / last["seconds"]),
    }


def _quietly(work):
    """What work returns, without the warning that nothing is learned: the record says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the loss stands at ln")
        return work()


def _describe(row):
    if "diverged" in row:
        return row["diverged"]
    results = ", ".join(f"{name} {value:.2%}" for name, value in row["results"].items())
    return f"{results} in {row['seconds']:.0f} s"


def _append(content, row, path):
    order = list(content["networks"])
    content["runs"].append(row)
    content["runs"].sort(key=lambda run: (run["seed"], order.index(run["network"])))
    _write(content, path)


def _write(content, path):
    """Write the record, one run on a line."""
    head = json.dumps({name: value for name, value in content.items() if name != "runs"}, indent=1)
    runs = ",\n  ".join(json.dumps(run) for run in content["runs"])
    write_text(path, f'{head[:-2]},\n "runs": [\n  {runs}\n ]\n}}\n')


def _scratch(path, configuration, seed):
    return path.with_name(f"{path.stem}.{_key(configuration, seed)[:8]}.scratch")


def _remove_scratch(path):
    """Remove the checkpoints beside the record, and what a killed runner left half written."""
    for pattern in (f"{path.stem}.*.scratch*", f"{path.name}*.part"):
        for file in path.parent.glob(pattern):
            file.unlink()


def _key(configuration, seed):
    """What two equal runs have in common."""
    return _digest([configuration, seed])


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain(value):
    """A value as it comes back from JSON, where a tuple is a list."""
    return json.loads(json.dumps(value))


def _rounded(value):
    """The same with every number rounded to five digits after the point."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 5) if isinstance(value, float) else value
