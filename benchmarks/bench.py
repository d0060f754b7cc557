"""Hold vgglab's training against Dive into Deep Learning's on this machine: python benchmarks/bench.py cpu|gpu.

Both sides are measured in turn, each time in a new process; the medians and their ratios go to records/, comparison
by comparison. Called again, it measures what the record lacks of this machine's. What is to ship goes to
vgglab/course/experiments/records, and python benchmarks/figure.py draws it for the README.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import common
import torch

from vgglab import cost, data, machine
from vgglab._files import write_text

HERE = Path(__file__).parent


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", choices=("cpu", "gpu"))
    parser.add_argument("--rounds", type=int, default=3, help="times that both sides are measured (default: 3)")
    parser.add_argument("--records", type=Path, default=common.OWN, help="the folder to write to; default: %(default)s")
    options = parser.parse_args(arguments)
    if (options.device == "gpu") != torch.cuda.is_available():
        sys.exit("bench.py gpu needs a GPU" if options.device == "gpu" else "bench.py cpu is for machines without GPU")
    try:
        import sides  # noqa: F401
    except ModuleNotFoundError as error:
        needs = "pip install --no-deps d2l==1.0.3, beside pandas, IPython, matplotlib and requests"
        sys.exit(f"{error.name} is not installed, and the book's side needs it: {needs}")
    device = machine.find_device()
    precision = machine.find_precision("auto", device)
    path = options.records / f"benchmark-{options.device}.json"
    record = begun(path, machine.environment(device, precision), data.load().name, options.rounds)
    rows, known = (CPU if options.device == "cpu" else GPU)(precision), record["comparisons"]
    for name, pair in rows.items():
        measured = [list(side) for side in pair]  # as it comes back from the file
        if known.get(name, {}).get("measured") != measured:
            known[name] = {"measured": measured, **compare(name, *pair, options.rounds)}
            common.write(path, record)
    record["comparisons"] = {name: known[name] for name in rows}
    record["share of the machine"] = shares(record, precision)
    common.write(path, record)
    write_text(path.with_suffix(".md"), table(record))
    print(table(record))


def begun(path, environment, dataset, rounds):
    """The record at path, where it was begun on this machine with as many rounds, or an empty one."""
    record = common.read(path)
    if record and common.on_this_machine(record["environment"], environment):
        if (record["data"], record["rounds"]) == (dataset, rounds):
            return record
    return {"environment": environment, "data": dataset, "rounds": rounds, "comparisons": {}}


def CPU(precision):
    """Name -> (the book's side, vgglab's side), each the name and the arguments of a function of sides.py."""
    quarter = {"name": "quarter", "size": 224, "batches": 8}
    ours = quarter | {"batches": 16}
    small = {"name": "cpu recipe", "size": 32, "batches": 60}
    rows = {
        "data, 28 pixels": (("data_d2l", {"size": 28, "batches": 200}), ("data_ours", {"size": 28, "batches": 400})),
        "data, 224 pixels": (("data_d2l", {"size": 224, "batches": 60}), ("data_ours", {"size": 224, "batches": 100})),
    }
    for kind in dict.fromkeys(("float32", precision)):
        rows[f"loop, 224 pixels, {kind}"] = ("loop_d2l", quarter), ("loop_ours", ours | {"precision": kind})
    kept = quarter | {"keep_memory": True}
    rows["loop, 224 pixels, memory kept on both sides"] = (
        ("loop_d2l", kept), ("loop_ours", ours | {"precision": "float32"}),
    )  # fmt: skip
    rows[f"loop, the cpu recipe's network, 32 pixels, {precision}"] = (
        ("loop_d2l", small), ("loop_ours", small | {"precision": precision}),
    )  # fmt: skip
    return rows


def GPU(precision):
    """As CPU(), with whole epochs, and with the network compiled and in larger batches."""
    rows = {
        "data, 28 pixels": (("data_d2l", {"size": 28, "batches": 400}), ("data_ours", {"size": 28, "batches": 400})),
        "data, 224 pixels": (("data_d2l", {"size": 224, "batches": 200}), ("data_ours", {"size": 224, "batches": 400})),
    }
    for name, batches in (("full", 240), ("quarter", 400)):
        theirs = {"name": name, "size": 224, "batches": batches}
        for title, options in {
            "": {}, ", compiled": {"compile": True}, ", compiled, batch 512": {"compile": True, "batch_size": 512},
        }.items():  # fmt: skip
            rows[f"loop, 224 pixels, {name} network{title}, {precision}"] = (
                ("loop_d2l", theirs), ("loop_ours", theirs | {"precision": precision} | options),
            )  # fmt: skip
    return rows


def compare(name, theirs, ours, rounds):
    """Measure both sides in turn; the medians, and the median of the ratios of neighbours."""
    print(f"{name} ...", flush=True)
    results = [(run(*theirs), run(*ours)) for _ in range(rounds)]
    rates = [[side["images_per_second"] for side in pair] for pair in results]
    print(f"  {rates}", flush=True)
    return {
        "d2l": summary([pair[0] for pair in results]),
        "vgglab": summary([pair[1] for pair in results]),
        "ratio": statistics.median(ours / theirs for theirs, ours in rates),
        "ratios": [ours / theirs for theirs, ours in rates],
    }


def summary(results):
    """The median of each number that the results hold."""
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def run(name, arguments):
    """One function of sides.py in a process of its own, in threads that wait as PyTorch has them by default."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, str(HERE / "sides.py"), name, json.dumps(arguments)]
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        if done.returncode:
            errors.seek(0)
            sys.exit(f"{name} {arguments} failed:\n{errors.read()}")
    return json.loads(done.stdout)


def shares(record, precision):
    """Which part of the machine's best rate each loop at 224 pixels reaches, by the operations of its network."""
    import sides

    rows, kinds = {}, dict.fromkeys(("float32", precision))
    best = record.get("share of the machine", {}).get("best rates")
    best = best or {kind: run("machine_rate", {"precision": kind}) for kind in kinds}
    for name, comparison in record["comparisons"].items():
        if name.startswith("loop, 224"):
            kind = precision if name.endswith(precision) else "float32"
            with torch.device("meta"):
                network = sides.network("full" if "full" in name else "quarter", 224)
            operations = training_operations(network, 224)
            rate = operations * comparison["vgglab"]["images_per_second"]
            rows[name] = {"operations_per_image": operations, "share": rate / best[kind]["operations_per_second"]}
    return {"best rates": best, "loops": rows}


def training_operations(model, size):
    """Operations of a step for one image: forward, and twice that backward but for the first layer's input."""
    rows = [row for row in cost.ledger(model, (1, size, size)).rows if row.macs]
    return 2 * (3 * sum(row.macs for row in rows) - rows[0].macs)


def table(record):
    """The comparisons as a Markdown table."""
    lines = [
        f"{record['environment']['device']}, torch {record['environment']['torch']}, {record['data']}, "
        f"medians of {record['rounds']} rounds",
        "",
        "| images/s | d2l | vgglab | ratio |",
        "|---|---|---|---|",
    ]
    for name, row in record["comparisons"].items():
        rates = [f"{row[side]['images_per_second']:,.0f}" for side in ("d2l", "vgglab")]
        lines.append(f"| {name} | {rates[0]} | {rates[1]} | {row['ratio']:.2f} |")
    lines += ["", "| share of the machine's best rate | |", "|---|---|"]
    lines += [f"| {name} | {row['share']:.0%} |" for name, row in record["share of the machine"]["loops"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
