"""The set-up files agree with one another."""

import re
import tomllib
from pathlib import Path

import rattler
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())


def names(requirements):
    return {re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9_.-]+", line)[0]).lower() for line in requirements}


def test_conda_gives_python_pip_and_make_and_pip_gives_the_rest():
    specs = [rattler.MatchSpec(line) for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
    versions = {spec.name.normalized: str(spec.version) for spec in specs}
    assert versions.keys() == {"python", "pip", "make"}
    assert versions["python"] == PROJECT["project"]["requires-python"]
    pip_lines = next(line["pip"] for line in ENVIRONMENT["dependencies"] if isinstance(line, dict))
    assert pip_lines == ["--constraint constraints.txt", "--editable ."]


def test_constraints_pin_every_requirement_and_name_no_address():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.!]+", line) for line in lines)
    wanted = names(PROJECT["project"]["dependencies"]) | names(sum(PROJECT["dependency-groups"].values(), []))
    assert wanted <= names(lines)
