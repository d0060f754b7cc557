"""What recorded runs say: means, intervals, and whether one network is better than another."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from scipy import stats

from vgglab import _checks as checks
from vgglab._checks import Count, FilePath, checked

OWN, SHIPPED = Path("records"), Path(__file__).parent / "records"
SIZES = ("cpu", "gpu")
Size = Literal["cpu", "gpu"]
CONTENT = {"data": str, "facts": dict, "networks": dict, "runs": list}
UNUSED = "unused runs"  # of configurations that the experiment no longer has: kept, and never counted
Run = dict[str, Any]


def _name(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError(f"{name} must be that of an experiment, not {value!r}")
    return value


Name = Annotated[str, _name]


@dataclass(frozen=True)
class Comparison:
    """Accuracy of one network minus another's, in percentage points, over runs paired by their seed.

    accuracies are the pairs (a's, b's) in per cent, in the order of seeds.
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
    accuracies: tuple[tuple[float, float], ...]

    @property
    def differences(self) -> list[float]:
        """Accuracy of a minus that of b for each of seeds, in percentage points."""
        return [a - b for a, b in self.accuracies]

    @property
    def verdict(self) -> str:
        """One sentence: which is better and by how much, or that these runs cannot tell."""
        if self.low > 0:
            return f"{self.a} is better by {self._points(self.difference, self.low, self.high)}"
        if self.high < 0:
            return f"{self.b} is better by {self._points(-self.difference, -self.high, -self.low)}"
        if math.isinf(self.low):
            return "no difference that these runs can show (one pair of runs has no interval)"
        return f"no difference that these runs can show (95 % interval {self.low:.2f} to {self.high:.2f} points)"

    def _points(self, difference: float, low: float, high: float) -> str:
        return f"{difference:.2f} points (95 % interval {low:.2f} to {high:.2f})"


@dataclass(frozen=True)
class Record:
    """The recorded runs of one experiment: what each trained, where, when, and with which result.

    networks holds the configuration of each network; runs one dict for each run; facts what was measured beside the
    runs; data the name of the data set with its checksum.
    """

    name: str
    data: str
    facts: dict[str, Any]
    networks: dict[str, dict[str, Any]]
    runs: list[Run]

    def accuracies(self) -> dict[str, dict[int, float]]:
        """Return {row: {seed: accuracy}}; a row is a network, or "network, way of testing" where there are several."""
        return {row: {run["seed"]: accuracy for run, accuracy in results} for row, results in self._rows().items()}

    def table(self) -> list[dict[str, Any]]:
        """Return one dict for each row of accuracies().

        Its keys: row, runs, learned (runs whose loss left that of guessing), accuracy (mean over the seeds), low and
        high (its 95 % interval by Student's t), parameters, macs, and seconds (mean training time of a run).
        """
        return [_summary(row, results) for row, results in self._rows().items()]

    def _rows(self) -> dict[str, list[tuple[Run, float]]]:
        """The runs behind each row, with the accuracy that each contributes."""
        rows: dict[str, list[tuple[Run, float]]] = {}
        for run in self.runs:
            for measure, accuracy in run["results"].items():
                row = run["network"] if measure == "accuracy" else f"{run['network']}, {measure}"
                rows.setdefault(row, []).append((run, accuracy))
        return rows

    def compare(self, a: str, b: str) -> Comparison:
        """Return the Comparison of rows a and b over the seeds that both have.

        Raises ValueError for a row that is not in the record, and where they have no seed in common.
        """
        accuracies = self.accuracies()
        one, other = (accuracies[checks.choice(name, row, accuracies)] for name, row in (("a", a), ("b", b)))
        seeds = tuple(sorted(one.keys() & other.keys()))
        if not seeds:
            raise ValueError(f"{a!r} and {b!r} must have runs with the same seed; they have none in record {self.name}")
        pairs = tuple((100 * one[seed], 100 * other[seed]) for seed in seeds)
        differences = [x - y for x, y in pairs]
        mean, interval = float(np.mean(differences)), t_interval(differences)
        return Comparison(a, b, mean, *interval, bootstrap_interval(differences), seeds, pairs)

    @property
    def provenance(self) -> str:
        """One line: how many runs, on which machine, when, with which PyTorch and on which data."""
        machines = [run["machine"] for run in self.runs]
        devices, versions = (sorted({machine[key] for machine in machines}) for key in ("device", "torch"))
        dates = sorted({machine["date"] for machine in machines})
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        return (
            f"record {self.name}: {len(self.runs)} runs, {when}, {' and '.join(devices)}, "
            f"torch {' and '.join(versions)}, {self.data}"
        )


@checked
def load_record(name: Name, size: Size = "cpu", folder: FilePath | None = None) -> Record:
    """Return the Record of an experiment, size "cpu" or "gpu", from a folder, or where None the one that is found.

    Raises FileNotFoundError with the command that makes it where there is none, ValueError for a damaged file.
    """
    path = record_path(name, size, folder)
    content = read(path)
    if content is None or not content["runs"]:
        raise FileNotFoundError(f"{path} has no runs yet: python -m vgglab experiment {name} --size {size} makes them")
    runs = [{**run, "configuration": content["networks"][run["network"]]} for run in content["runs"]]
    return Record(path.stem, content["data"], content["facts"], content["networks"], runs)


def folders() -> list[Path]:
    """Return where records are looked for: records/ here and one folder above, then the shipped ones.

    Where VGGLAB_RECORDS names a folder, it is the only one.
    """
    only = os.environ.get("VGGLAB_RECORDS")
    return [Path(only)] if only else [OWN, Path("..") / OWN, SHIPPED]


def find_records(pattern: str) -> list[Path]:
    """Return the paths of the records of a pattern, such as `accuracy-*.json`, in the order of their names."""
    found = {path.name: path for folder in reversed(folders()) for path in folder.glob(pattern)}
    return [found[name] for name in sorted(found)]


@checked
def record_path(name: Name, size: Size = "cpu", folder: FilePath | None = None) -> Path:
    """Return where the record of an experiment is kept: NAME.json, or NAME-gpu.json for the large size."""
    file = f"{name}.json" if size == "cpu" else f"{name}-{size}.json"
    paths = [one / file for one in (folders() if folder is None else [Path(folder)])]
    return next((path for path in paths if path.exists()), paths[0])


def read(path: Path) -> dict[str, Any] | None:
    """Return the content of a record's file, None where there is no file; raise ValueError for another file."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.keys() - {UNUSED} == CONTENT.keys() and all(
            isinstance(content[key], kind) for key, kind in CONTENT.items()
        ):
            if all(run["network"] in content["networks"] and _is_run(run) for run in content["runs"]):
                return content
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):  # no JSON, or another
        pass
    raise ValueError(f"{path} is not the record of an experiment: move it away, or name another folder")


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of the mean of values by Student's t; infinite for a single value."""
    values = _numbers(values)
    if len(values) < 2:
        return -math.inf, math.inf
    reach = t_quantile(len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - reach), float(np.mean(values) + reach)


@checked
def t_quantile(
    degrees: Annotated[float, partial(checks.number, at_least=1)],
    level: Annotated[float, partial(checks.number, above=0, at_most=0.9999)] = 0.95,
) -> float:
    """Return the t that a variable of Student's distribution stays within, on both sides, with probability level."""
    return float(stats.t.ppf((1 + level) / 2, degrees))


@checked
def bootstrap_interval(values: Sequence[float], draws: Count = 20_000) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval (low, high) of the mean of values, drawn with a fixed seed."""
    values = _numbers(values)
    samples = np.random.default_rng(0).choice(values, (draws, len(values)))
    low, high = np.quantile(samples.mean(1), (0.025, 0.975))
    return float(low), float(high)


def _numbers(values: Sequence[float]) -> list[float]:
    numbers = [checks.number("values", value) for value in checks.sequence("values", values)]
    if not numbers:
        raise ValueError("values must hold at least one number")
    return numbers


def _is_run(run: Any) -> bool:
    """Whether a run of a record has what Record reads."""
    results, machine = run["results"], run["machine"]
    numbers = [*results.values(), run["seed"], run["parameters"], run["macs"], run["seconds"], run["learned"]]
    words = [machine[name] for name in ("device", "torch", "date")]
    return all(isinstance(n, (int, float)) for n in numbers) and all(isinstance(word, str) for word in words)


def _summary(row: str, results: list[tuple[Run, float]]) -> dict[str, Any]:
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
