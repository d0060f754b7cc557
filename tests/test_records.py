"""What recorded runs say, their statistics, and where records are found."""

import itertools
import json

import numpy as np
import pytest

from vgglab.course.experiments import records, runner
from vgglab.course.experiments.registry import EXPERIMENTS

RUN = {
    "network": "A", "seed": 0, "results": {"accuracy": 0.5}, "learned": True, "parameters": 10, "macs": 20,
    "seconds": 2.0, "machine": {"device": "abacus", "torch": "2.0", "date": "2026-01-01"},
}  # fmt: skip


def record_of(accuracies, measure="accuracy"):
    """A Record of runs with these accuracies, by network and seed."""
    runs = []
    for network, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            machine = {**RUN["machine"], "date": f"2026-01-0{seed + 1}"}
            results = {"results": {measure: accuracy}, "learned": accuracy > 0.2, "seconds": 2.0 + seed}
            runs.append({**RUN, **results, "network": network, "seed": seed, "machine": machine})
    return records.Record("test", "garments", {}, {}, runs)


def test_the_bootstrap_is_that_of_all_resamples():
    values = [0.3, -0.2, 0.5, 0.9, 0.1, 0.65]
    every = [np.mean(sample) for sample in itertools.product(values, repeat=len(values))]
    interval = records.bootstrap_interval(values)
    assert interval == pytest.approx(tuple(np.quantile(every, (0.025, 0.975))), abs=0.02)
    assert records.bootstrap_interval(values) == interval


def test_the_t_interval_holds_the_truth_as_often_as_it_says_and_the_bootstrap_of_five_does_not():
    samples = np.random.default_rng(0).normal(size=(300, 5))
    held = [[low < 0 < high for low, high in (records.t_interval(list(x)), records.bootstrap_interval(x, 500))]
            for x in samples]  # fmt: skip
    by_t, by_bootstrap = np.mean(held, axis=0)
    assert 0.91 < by_t < 0.98 and by_bootstrap < 0.89


def test_verdicts_say_which_is_better_and_by_how_much_or_that_they_cannot_tell():
    record = record_of({"A": [0.90, 0.91, 0.92], "B": [0.92, 0.931, 0.939], "C": [0.91, 0.90, 0.93]})
    better, worse = record.compare("B", "A"), record.compare("A", "B")
    assert better.difference == pytest.approx(2.0) and worse.difference == pytest.approx(-2.0)
    assert better.verdict == worse.verdict == "B is better by 2.00 points (95 % interval 1.75 to 2.25)"
    assert record.compare("C", "A").verdict.startswith("no difference that these runs can show (95 % interval -2.54 to")
    assert "(one pair of runs has no interval)" in record_of({"A": [0.9], "B": [0.8]}).compare("A", "B").verdict


def test_a_table_has_a_row_for_each_network_and_way_of_testing_and_a_line_says_where_it_is_from():
    (row, other) = record_of({"A": [0.9, 0.8], "B": [0.1, 0.1]}).table()
    assert (row["row"], row["runs"], row["learned"], other["learned"]) == ("A", 2, 2, 0)
    assert (row["parameters"], row["macs"], row["seconds"]) == (10, 20, 2.5)
    assert row["accuracy"] == pytest.approx(0.85) and row["low"] < 0.85 < row["high"]
    record = record_of({"A, warm start": [0.5, 0.6]}, "dense")
    assert [row["row"] for row in record.table()] == ["A, warm start, dense"]
    assert record.provenance == "record test: 2 runs, 2026-01-01 to 2026-01-02, abacus, torch 2.0, garments"


def test_seeds_without_a_partner_do_not_count():
    record = record_of({"A": [0.9, 0.8, 0.7], "B": [0.8, 0.7]})
    assert record.compare("A", "B").seeds == (0, 1)
    record.runs[:] = [run for run in record.runs if (run["network"], run["seed"]) not in {("B", 0), ("B", 1)}]
    record.runs.append({**record.runs[0], "network": "B", "seed": 7})
    with pytest.raises(ValueError, match="must have runs with the same seed"):
        record.compare("A", "B")


def test_a_missing_record_is_named_with_its_command_and_another_file_is_not_written_over(tmp_path, garments):
    with pytest.raises(FileNotFoundError, match="python -m vgglab experiment depth --size gpu makes them"):
        records.load_record("depth", "gpu", tmp_path)
    (tmp_path / "depth.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="depth.json is not the record of an experiment"):
        runner.run(EXPERIMENTS["depth"], garments, tmp_path / "depth.json")
    assert (tmp_path / "depth.json").read_text() == '{"a": 1}'


def test_your_own_records_are_found_before_the_shipped_ones(tmp_path, monkeypatch):
    def write(folder, name, seconds):
        (tmp_path / folder).mkdir(exist_ok=True)
        content = {"data": "", "facts": {}, "networks": {"A": {}}, "runs": [{**RUN, "seconds": seconds}]}
        (tmp_path / folder / name).write_text(json.dumps(content))

    monkeypatch.delenv("VGGLAB_RECORDS")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert len(records.load_record("depth").runs) > 1 and len(records.find_records("benchmark-*.json")) == 1
    for seconds, folder in enumerate(("records", "notebooks/records")):
        write(folder, "depth.json", seconds)
        assert records.load_record("depth").runs[0]["seconds"] == seconds
    write("records", "depth-gpu.json", 2)
    assert records.load_record("depth", "gpu").runs[0]["seconds"] == 2
    found = [path.resolve() for path in records.find_records("depth*.json")]
    assert found == [tmp_path / "records" / "depth-gpu.json", tmp_path / "notebooks" / "records" / "depth.json"]
    monkeypatch.setenv("VGGLAB_RECORDS", str(records.SHIPPED))
    assert len(records.load_record("depth").runs) > 1
