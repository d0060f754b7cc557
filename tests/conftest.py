import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from vgglab import data
from vgglab.course.experiments import records

os.environ["VGGLAB_RECORDS"] = str(records.SHIPPED)  # not what somebody recorded here

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def garments():
    """A small drawn data set."""
    return data.drawn_garments(train=600, test=200)


@pytest.fixture(scope="session")
def fashion_mnist():
    """The real data, where VGGLAB_DATA says that it is."""
    if not os.environ.get("VGGLAB_DATA"):
        pytest.skip("real Fashion-MNIST is not here: VGGLAB_DATA is not set")
    return data.load("fashion-mnist", download=False)


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window."""
    if BROWSER is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield started
        started.close()


@pytest.fixture
def random_images():
    """Ten times ten images of noise."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (100, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return data.Images(pixels, torch.arange(100) % 10)


@pytest.fixture(scope="module")
def one_thread():
    """Small tensors wait for each other's threads longer than they compute, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
