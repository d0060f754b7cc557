"""Pictures that answer a hand: a control moves and the picture is another, in a kernel alone and in JupyterLab."""

import json
import os
import subprocess
import sys
import time

import nbformat
import pytest
from ipywidgets import Dropdown, FloatLogSlider, IntSlider

from vgglab.course.figures.moving import moving
from vgglab.course.figures.style import figure

IMPORTS = """import torch
from vgglab.course import figures
from vgglab.lrn import local_response_norm
from vgglab.receptive_field import stack"""
CELLS = "torch.linspace(0, 1, 10 * (size // 32 - 1) * (size // 20)).view(10, size // 32 - 1, size // 20)"
MOVED = {
    "lesson 01": "figures.move_field(torch.rand(64, 64), {'conv': stack([3]), 'pool': stack([3, 8], [1, 8])})",
    "lesson 03": "figures.move_lrn(torch.arange(1.0, 11), local_response_norm)",
    "lesson 06": f"figures.move_score_map(lambda size: (torch.eye(size), {CELLS}), tuple('abcdefghij'), window=64)",
}
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def test_controls_start_at_the_defaults_and_each_move_draws_once():
    fig, axis = figure(size=(2, 2))
    line = axis.axhline(0)
    axis.set_ylim(0, 10)
    asked = []

    def draw(height=3, kind="a", scale=1.0):
        asked.append((height, kind, scale))
        line.set_ydata([height, height])
        return fig

    shown = moving(draw, height=(0, 10), kind=["a", "b"], scale=FloatLogSlider(1.0, description="ten to the"))
    (height, kind, scale), picture = shown.children[0].children, shown.children[1]
    assert [type(height), type(kind)] == [IntSlider, Dropdown]
    assert [height.description, kind.description, scale.description] == ["height", "kind", "ten to the"]
    first = bytes(picture.value)
    height.value = 7
    assert first.startswith(b"\x89PNG") and picture.value != first
    kind.value, scale.value, height.value = "b", 10.0, 3
    assert picture.value == first
    assert asked == [(3, "a", 1), (7, "a", 1), (7, "b", 1), (7, "b", 10), (3, "b", 10)]


@pytest.mark.parametrize("lesson", MOVED)
def test_every_control_changes_the_picture(lesson):
    names = {}
    exec(f"{IMPORTS}\nshown = {MOVED[lesson]}", names)
    controls, picture = names["shown"].children
    for control in controls.children:
        before = bytes(picture.value)
        control.value = control.options[-1] if isinstance(control, Dropdown) else control.value + control.step
        assert picture.value != before, control.description


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """A JupyterLab that shows the notebooks of a folder: (its address, the folder)."""
    folder = tmp_path_factory.mktemp("lab")
    own = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "RUNTIME")}
    own |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"), "JUPYTER_PREFER_ENV_PATH": "1"}
    options = ["--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token="]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={folder}"]
    with subprocess.Popen(command, env={**os.environ, **own}, stderr=subprocess.DEVNULL) as server:
        while not (running := list(folder.glob("RUNTIME/jpserver-*.json"))):
            assert server.poll() is None
            time.sleep(0.2)
        yield json.loads(running[0].read_text())["url"], folder
        server.terminate()


@pytest.mark.parametrize("lesson", MOVED)
def test_in_jupyterlab_the_picture_follows_the_slider(lesson, chromium, jupyterlab):
    address, folder = jupyterlab
    cell = nbformat.v4.new_code_cell(f"{IMPORTS}\n{MOVED[lesson]}")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=KERNEL), folder / f"{lesson}.ipynb")
    with chromium.new_page() as page:
        page.set_default_timeout(120_000)
        page.goto(f"{address}doc/tree/{lesson}.ipynb")  # this notebook alone, not those of the tests before
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # before it, what is run is lost
        page.locator(".jp-Notebook .cm-content").click()
        page.keyboard.press("Shift+Enter")
        picture = page.locator("img.widget-image")
        before = picture.get_attribute("src")
        page.locator(".noUi-handle").first.press("ArrowRight")
        page.wait_for_function("old => document.querySelector('img.widget-image').src != old", arg=before)
        assert picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 400
