"""The set-up files agree with one another."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, STDOUT

import buttons
import nbformat
import pytest
import rattler
import yaml
from packaging.specifiers import SpecifierSet

import vgglab
from vgglab.__main__ import EXAMPLES, command_line

ROOT = Path(__file__).parent.parent
README, GUIDE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/teaching.md"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS, GROUPS = PROJECT["project"]["optional-dependencies"], PROJECT["dependency-groups"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())


def names(requirements):
    return {re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9_.-]+", line)[0]).lower() for line in requirements}


def test_conda_gives_python_pip_and_make_and_pip_gives_what_lessons_tests_and_pages_need():
    specs = [rattler.MatchSpec(line) for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]
    versions = {spec.name.normalized: str(spec.version) for spec in specs}
    assert versions.keys() == {"python", "pip", "make"}
    assert versions["python"] == PROJECT["project"]["requires-python"]
    pip_lines = next(line["pip"] for line in ENVIRONMENT["dependencies"] if isinstance(line, dict))
    assert pip_lines[:2] == ["--constraint constraints.txt", "--editable .[lab]"]
    assert pip_lines[2:] == sorted(names(GROUPS["test"])) + sorted(names(GROUPS["pages"]))


def test_constraints_pin_every_requirement_and_name_no_address():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.!]+", line) for line in lines)
    required = PROJECT["project"]["dependencies"], *EXTRAS.values(), *GROUPS.values()
    assert names(sum(required, [])) <= names(lines) | {"vgglab"}


IMPORTED = re.compile(r"^ *(?:from|import) (\w+)", re.MULTILINE)


def test_the_module_and_the_lessons_import_what_their_requirements_bring():
    lessons = [cell.source for path in (ROOT / "notebooks").glob("*.ipynb") for cell in nbformat.read(path, 4).cells]
    modules = [path.read_text(encoding="utf-8") for path in (ROOT / "vgglab").rglob("*.py")]
    packages = importlib.metadata.packages_distributions()
    imported = {name for text in lessons + modules for name in IMPORTED.findall(text) if name in packages}
    brought = names(PROJECT["project"]["dependencies"] + EXTRAS["course"])
    assert {name for name in imported if not names(packages[name]) & brought} <= {"IPython", "d2l", "vgglab"}


WITHOUT_EXTRAS = """
import pkgutil, sys
sys.modules |= dict.fromkeys(sys.argv[1:])  # None: it cannot be imported
import vgglab.receptive_field, vgglab.cost, vgglab.models, vgglab.training, vgglab.data
assert "torchvision" not in sys.modules
from vgglab.__main__ import command_line, main
for module in pkgutil.walk_packages(vgglab.__path__, "vgglab.", onerror=lambda name: None):
    if not module.name.startswith("vgglab.course"):
        __import__(module.name)
command_line().parse_args(["train"])
main(["progress", "."])
try:
    main(["experiment", "--help"])
except SystemExit as done:
    assert done.code == 0
try:
    import vgglab.course.figures
except ImportError as error:
    print(error)
"""


def test_all_but_the_figures_works_without_extras_and_loads_little_and_the_course_names_its_own():
    absent = {name.replace("-", "_") for name in names(EXTRAS["course"] + EXTRAS["lab"])} - {"vgglab"} | {"IPython"}
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *absent]
    done = subprocess.run(command, cwd=ROOT / "notebooks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'UserWarning: no figures without matplotlib: pip install "vgglab[course]"' in done.stderr
    assert re.search(r"in all +0 of \d+\n", done.stdout) and "usage: python -m vgglab experiment" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(' is not installed: pip install "vgglab[course]"')


def test_the_devcontainer_sets_up_as_the_readme_does():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["image"].startswith("python:3.") and container["postCreateCommand"] == "make .venv/ready TORCH=cpu"
    assert "READY := .venv/ready" in (ROOT / "Makefile").read_text()


WITHOUT_MAKE = 'python -m pip install --constraint constraints.txt --editable ".[lab]"'


def test_every_command_in_the_readme_the_guide_and_the_help_is_one_that_exists():
    shown = re.findall(r"(?ms)^```\w*\n(.*?)^```|`([^`\n]+)`", README + GUIDE)
    lines = "\n".join([EXAMPLES.replace("\\\n", ""), *(block or inline for block, inline in shown)]).replace(
        " && ", "\n"
    )
    commands = set(re.findall(r"(?m)^ *(?:\.venv/bin/)?((?:make|python|torchrun|pip|conda|jupyter|source) .*)", lines))
    ours = {command for command in commands if "-m vgglab" in command}
    made = {command for command in commands if command.startswith("make ")}
    for command in ours:
        command_line(course=True).parse_args(command.split("-m vgglab")[1].split())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {command.split()[1] for command in made} <= targets and len(ours) >= 8 and len(made) >= 8
    assert commands - ours - made == {
        WITHOUT_MAKE, "jupyter lab notebooks", "source .venv/bin/activate", "conda env create -f environment.yml",
        f"conda activate {ENVIRONMENT['name']}", f"pip install --no-deps {GROUPS['compare'][0]}",
    }  # fmt: skip


def test_the_module_answers_what_the_readme_says():
    space = {}
    for line in re.search(r"```python\n(.*?)```", README, re.DOTALL)[1].splitlines():
        code, _, said = line.partition("  # ")
        if said:
            assert said.replace(",", "").startswith(f"{eval(code, space)} ".replace(",", ""))
        else:
            exec(code, space)


def test_the_readme_and_the_first_lesson_say_how_long_the_course_takes():
    cells = [cell for path in (ROOT / "notebooks").glob("*.ipynb") for cell in nbformat.read(path, 4).cells]
    reading, exercises = (
        sum(int(minutes) for cell in cells for minutes in re.findall(pattern, cell.source, re.MULTILINE))
        for pattern in (r"^(\d+) minutes", r"^\*\*[A-Z]+-\d\*\* · (\d+) min")
    )
    hours = f"about {reading / 60:.0f} hours of reading and {exercises / 60:.0f} of exercises"
    for name in ("README.md", "notebooks/00_start_here.ipynb"):
        assert hours in " ".join((ROOT / name).read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    ("schema", "file"), [("github-workflows", ".github/workflows/ci.yml"), ("citation-file-format", "CITATION.cff")]
)
def test_what_github_reads_keeps_to_its_schema(schema, file):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(ROOT / file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_version_is_the_same_wherever_it_stands():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert citation["version"] == newest == vgglab.__version__
    assert f"version {newest}." in README


def test_the_workflow_tests_every_python_and_runs_the_lessons_elsewhere_too():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    pythons = SpecifierSet(PROJECT["project"]["requires-python"])
    tested = [f"3.{minor}" for minor in range(30) if pythons.contains(f"3.{minor}.0")]
    assert jobs["test"]["strategy"]["matrix"]["python"] == tested
    assert jobs["lessons"]["strategy"]["matrix"]["system"] == ["macos-latest", "windows-latest"]
    assert "--nbval-lax" in jobs["lessons"]["steps"][-1]["run"]
    assert jobs["lessons"]["steps"][-2]["run"].startswith(WITHOUT_MAKE)


def test_buttons_lead_to_the_lessons_and_are_put_in_once(tmp_path):
    lesson = tmp_path / "notebooks" / "00_start_here.ipynb"
    lesson.parent.mkdir()
    cells = [nbformat.v4.new_markdown_cell("# 00", id="title"), nbformat.v4.new_code_cell("1", id="one")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), lesson)
    (tmp_path / "README.md").write_text("# vgglab\n\nA course.\n\nMore.\n")
    for repository in ("old/name", "owner/course"):
        buttons.main(repository, tmp_path)
    readme, notebook = (tmp_path / "README.md").read_text(), nbformat.read(lesson, 4)
    assert readme.count("[![Open in") == 2 and readme.endswith("\n\nA course.\n\nMore.\n") and "old/name" not in readme
    assert "github/owner/course/blob/main/notebooks/00_start_here.ipynb" in readme
    assert [cell.id for cell in notebook.cells] == ["title", "buttons", "install", "one"]
    assert "git+https://github.com/owner/course" in notebook.cells[2].source
    with pytest.raises(SystemExit, match="OWNER/NAME"):
        buttons.main("nonsense", tmp_path)


# Makes true virtual environments, but for their pip, which takes its time and notes what it is asked for.
PYTHON = f"""#!/bin/sh
test "$2" = venv || exec {sys.executable} "$@"
{sys.executable} "$@" --without-pip && cp pip jupyter .venv/bin && echo venv >> log
"""
PIP = """#!/bin/sh
echo "pip $*" >> log
sleep 0.2
test ! -e offline
"""


@pytest.fixture
def clone(tmp_path):
    """A folder with all that the set-up reads."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    folder = tmp_path / "clone"
    (folder / "tools").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "tools/alone.py"):
        shutil.copy(ROOT / name, folder / name)
    for name, program in (("python", PYTHON), ("pip", PIP), ("jupyter", "#!/bin/sh\n")):
        (folder / name).write_text(program)
        (folder / name).chmod(0o755)
    return folder


def make(folder, *arguments):
    """The exit status of make and what it printed."""
    outer = {"MAKEFLAGS", "MAKELEVEL", "TORCH"}  # of the make that runs the tests
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", ".venv/ready", "PYTHON=./python", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=PIPE, stderr=STDOUT, text=True, timeout=60)
    return done.returncode, done.stdout


def steps(folder):
    """The steps of the set-up that were done since this was last asked."""
    done = (folder / "log").read_text().splitlines()
    (folder / "log").write_text("")
    return done


def test_a_set_up_that_was_cut_off_goes_on_and_one_that_is_done_is_left_alone(clone):
    (clone / ".venv" / "bin").mkdir(parents=True)  # cut off before the virtual environment was whole
    (clone / "offline").touch()
    code, printed = make(clone)
    begun = steps(clone)
    assert code and "cut off: it is made anew" in printed and begun[0] == "venv" and len(begun) == 2
    (clone / "offline").unlink()
    code, printed = make(clone)
    rest = steps(clone)
    assert code == 0 and rest[0] == begun[1] and len(rest) == 3 and "anew" not in printed
    assert "--editable .[lab]" in rest[1] and "--no-deps" in rest[2]
    assert make(clone)[0] == 0 and steps(clone) == []


def test_a_clone_that_was_moved_is_set_up_again(clone):
    make(clone)
    moved = clone.rename(clone.with_name("moved to a name with spaces"))
    steps(moved)
    code, printed = make(moved)
    assert code == 0 and "made for another folder" in printed and steps(moved)[0] == "venv"
    assert str(moved) in (moved / ".venv" / "bin" / "activate").read_text()
    assert make(moved)[0] == 0 and steps(moved) == []


def test_two_set_ups_at_once_wait_for_each_other(clone):
    with ThreadPoolExecutor(2) as pool:
        codes, printed = zip(*pool.map(make, [clone, clone]), strict=True)
    assert codes == (0, 0) and sorted("Waiting for another make" in text for text in printed) == [False, True]
    assert [step.split()[0] for step in steps(clone)] == ["venv", "pip", "pip", "pip"]


def test_pytorch_for_the_cpu_is_taken_first_where_it_is_asked_for(clone):
    code, printed = make(clone, "TORCH=cpu")
    assert code == 0 and "about 2 GB with PyTorch for the CPU alone" in printed
    assert steps(clone)[2].endswith("--no-deps --index-url https://download.pytorch.org/whl/cpu torch torchvision")
    code, printed = make(clone, "TORCH=gpu")
    assert code and "TORCH must be cpu, or left out, not gpu" in printed and not steps(clone)
