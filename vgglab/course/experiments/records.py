"""What recorded runs say: means, intervals, and whether one network is better than another."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vgglab import _checks as checks

RECORDS = Path(__file__).resolve().parents[3] / "records"
SIZES = ("cpu", "gpu")
CONTENT = {"data": str, "facts": dict, "networks": dict, "runs": list}
LARGEST, LARGEST_DEGREES = 1e100, 1e6


@dataclass(frozen=True)
class Comparison:
    """Accuracy of one network minus another's, in percentage points, over runs paired by their seed.

    low and high are the 95 % interval by Student's t, which the verdict rests on; bootstrap is the one by resampling
    the pairs. The percentile bootstrap of five values is too narrow (it covers some 83 % instead of 95 %: it lacks
    both the factor sqrt(n / (n - 1)) and t's wider tails), so it is shown but decides nothing. Source: Hesterberg,
    "What Teachers Should Know About the Bootstrap" (arXiv:1411.5279), sections 3.3 and 5.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    bootstrap: tuple[float, float]
    seeds: tuple[int, ...]

    @property
    def verdict(self):
        """One sentence: which is better and by how much, or that these runs cannot tell."""
        if self.low > 0:
            return f"{self.a} is better by {self._points(self.difference, self.low, self.high)}"
        if self.high < 0:
            return f"{self.b} is better by {self._points(-self.difference, -self.high, -self.low)}"
        if math.isinf(self.low):
            return "no difference that these runs can show (one pair of runs has no interval)"
        return f"no difference that these runs can show (95 % interval {self.low:.2f} to {self.high:.2f} points)"

    def _points(self, difference, low, high):
        return f"{difference:.2f} points (95 % interval {low:.2f} to {high:.2f})"


@dataclass(frozen=True)
class Record:
    """The recorded runs of one experiment: what each trained, where, when, and with which result.

    networks holds the configuration of each network; runs one dict for each run; facts what was measured beside the
    runs; data the name of the data set with its checksum.
    """

    name: str
    data: str
    facts: dict
    networks: dict
    runs: list

    def accuracies(self):
        """Return {row: {seed: accuracy}}; a row is a network, or "network, way of testing" where there are several."""
        return {row: {run["seed"]: accuracy for run, accuracy in results} for row, results in self._rows().items()}

    def table(self):
        """Return one dict for each row of accuracies().

        Its keys: row, runs, learned (runs whose loss left that of guessing), accuracy (mean over the seeds), low and
        high (its 95 % interval by Student's t), parameters, macs, and seconds (mean training time of a run).
        """
        return [_summary(row, results) for row, results in self._rows().items()]

    def _rows(self):
        """The runs behind each row, with the accuracy that each contributes."""
        rows = {}
        for run in self.runs:
            for measure, accuracy in run["results"].items():
                row = run["network"] if measure == "accuracy" else f"{run['network']}, {measure}"
                rows.setdefault(row, []).append((run, accuracy))
        return rows

    def compare(self, a, b):
        """Return the Comparison of rows a and b over the seeds that both have.

        Raises ValueError for a row that is not in the record, and where they have no seed in common.
        """
        accuracies = self.accuracies()
        one, other = (accuracies[checks.choice(name, row, accuracies)] for name, row in (("a", a), ("b", b)))
        seeds = tuple(sorted(one.keys() & other.keys()))
        if not seeds:
            raise ValueError(f"{a!r} and {b!r} must have runs with the same seed; they have none in record {self.name}")
        differences = [100 * (one[seed] - other[seed]) for seed in seeds]
        return Comparison(
            a, b, float(np.mean(differences)), *t_interval(differences), bootstrap_interval(differences), seeds
        )

    @property
    def provenance(self):
        """One line: how many runs, on which machine, when, with which PyTorch and on which data."""
        machines = [run["machine"] for run in self.runs]
        devices, versions = (sorted({machine[key] for machine in machines}) for key in ("device", "torch"))
        dates = sorted({machine["date"] for machine in machines})
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        return (
            f"record {self.name}: {len(self.runs)} runs, {when}, {' and '.join(devices)}, "
            f"torch {' and '.join(versions)}, {self.data}"
        )


def load_record(name, size="cpu", folder=None):
    """Return the Record of an experiment, size "cpu" or "gpu"; folder is the repository's records where None.

    Raises FileNotFoundError with the command that makes it where there is none, ValueError for a damaged file.
    """
    path = record_path(name, size, folder)
    content = read(path)
    if content is None or not content["runs"]:
        raise FileNotFoundError(f"{path} has no runs yet: python -m vgglab experiment {name} --size {size} makes them")
    runs = [{**run, "configuration": content["networks"][run["network"]]} for run in content["runs"]]
    return Record(path.stem, content["data"], content["facts"], content["networks"], runs)


def record_path(name, size="cpu", folder=None):
    """Return where the record of an experiment is kept: NAME.json, or NAME-gpu.json for the large size."""
    checks.choice("size", size, SIZES)
    if not isinstance(name, str) or not name.isprintable():
        raise TypeError(f"name must be that of an experiment, not {name!r}")
    folder = RECORDS if folder is None else checks.path("folder", folder)
    return folder / (f"{name}.json" if size == "cpu" else f"{name}-{size}.json")


def read(path):
    """Return the content of a record's file, None where there is no file; raise ValueError for another file."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.keys() == CONTENT.keys() and all(isinstance(content[key], kind) for key, kind in CONTENT.items()):
            if all(run["network"] in content["networks"] and _is_run(run) for run in content["runs"]):
                return content
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):  # no JSON, or another
        pass
    raise ValueError(f"{path} is not the record of an experiment: move it away, or name another folder")


def t_interval(values):
    """Return the 95 % interval (low, high) of the mean of values by Student's t; infinite for a single value."""
    values = _numbers(values)
    if len(values) < 2:
        return -math.inf, math.inf
    mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))
    reach = t_quantile(len(values) - 1) * error
    return float(mean - reach), float(mean + reach)


def t_quantile(degrees, level=0.95):
    """Return the t that a variable of Student's distribution stays within, on both sides, with probability level."""
    from scipy.special import stdtrit

    degrees = checks.number("degrees", degrees, at_least=1, at_most=LARGEST_DEGREES)
    level = checks.number("level", level, above=0, at_most=0.9999)
    return float(stdtrit(degrees, (1 + level) / 2))


def bootstrap_interval(values, draws=20_000):
    """Return the 95 % percentile bootstrap interval (low, high) of the mean of values, drawn with a fixed seed."""
    values, draws = _numbers(values), checks.integer("draws", draws, 1, 1_000_000)
    samples = np.random.default_rng(0).choice(values, (draws, len(values)))
    low, high = np.quantile(samples.mean(1), (0.025, 0.975))
    return float(low), float(high)


def _numbers(values):
    values = [checks.number("values", value, -LARGEST, at_most=LARGEST) for value in checks.sequence("values", values)]
    if not values:
        raise ValueError("values must hold at least one number")
    return values


def _is_run(run):
    """Whether a run of a record has what Record reads."""
    results, machine = run["results"], run["machine"]
    numbers = [*results.values(), run["seed"], run["parameters"], run["macs"], run["seconds"], run["learned"]]
    words = [machine[name] for name in ("device", "torch", "date")]
    return all(isinstance(n, (int, float)) for n in numbers) and all(isinstance(word, str) for word in words)


def _summary(row, results):
    """One row of a table, of its runs and the accuracy of each."""
    runs, accuracies = zip(*results, strict=True)
    low, high = t_interval(accuracies)
    return {
        "row": row,
        "runs": len(runs),
        "learned": sum(run["learned"] for run in runs),
        "accuracy": float(np.mean(accuracies)),
        "low": low,
        "high": high,
        "parameters": runs[0]["parameters"],
        "macs": runs[0]["macs"],
        "seconds": float(np.mean([run["seconds"] for run in runs])),
    }
