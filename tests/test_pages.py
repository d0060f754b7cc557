"""The course as pages and as slides: built from the stored outputs, opened without a network."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
LESSONS = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
HEIGHT = 800  # of a slide, as in the template


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "-c", "docs", ".", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    subprocess.run([sys.executable, "tools/slides.py", str(folder)], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield chromium.new_context(offline=True, viewport={"width": 1280, "height": HEIGHT})
        chromium.close()


def opened(browser, path):
    """The page with its mathematics set, and what it asked for outside its folder or in vain."""
    page, trouble = browser.new_page(), []
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or trouble.append(request.url))
    page.on("requestfailed", lambda request: trouble.append(f"failed: {request.url}"))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(path.as_uri())
    if page.evaluate("document.querySelector('script[src*=mathjax]') !== null"):
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise")
    page.wait_for_load_state("load")
    return page, trouble


def broken_figures(page):
    return page.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.src)")


def figures_of(lesson):
    cells = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", 4).cells
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))


def has_formulas(lesson):
    return any(
        "$" in cell.source
        for cell in nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", 4).cells
        if cell.cell_type == "markdown"
    )


@needs_browser
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_page_shows_figures_and_formulas_and_asks_for_nothing_outside(lesson, pages, browser):
    page, trouble = opened(browser, pages / "notebooks" / f"{lesson}.html")
    assert trouble == [] and broken_figures(page) == []
    assert page.locator(".cell_output img").count() == figures_of(lesson)
    assert (page.locator("mjx-container").count() > 0) == has_formulas(lesson)
    assert page.locator("h1").count() == 1
    page.close()


@needs_browser
@pytest.mark.parametrize("name", ["docs/index", "docs/teaching", "docs/glossary", "genindex", "search"])
def test_the_other_pages_open_too(name, pages, browser):
    page, trouble = opened(browser, pages / f"{name}.html")
    assert trouble == [] and broken_figures(page) == []
    page.close()


@needs_browser
def test_the_first_page_leads_to_the_contents(pages, browser):
    page = browser.new_page()
    page.goto((pages / "index.html").as_uri())
    page.wait_for_url((pages / "docs" / "index.html").as_uri())
    page.close()


def test_every_lesson_is_in_the_contents():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert all(f"../notebooks/{lesson}\n" in index for lesson in LESSONS)


@needs_browser
@pytest.mark.parametrize("lesson", LESSONS)
def test_every_slide_fits_and_a_deck_asks_for_nothing_outside(lesson, slides, browser):
    page, trouble = opened(browser, slides / f"{lesson}.html")
    assert trouble == [] and broken_figures(page) == []
    heights = page.evaluate(
        """() => [...document.querySelectorAll(".slides > section > section")].map(slide => {
            for (const part of [slide, slide.parentElement]) {
                part.style.display = "block";
                part.removeAttribute("hidden");
            }
            return [...slide.children].reduce((sum, cell) => sum + cell.offsetHeight, 0);
        })"""
    )
    assert len(heights) >= 10 and max(heights) <= HEIGHT, heights
    page.close()


@needs_browser
def test_a_deck_can_be_walked_through(slides, browser):
    page, trouble = opened(browser, slides / f"{LESSONS[1]}.html")
    total = page.evaluate("Reveal.getTotalSlides()")
    for _ in range(total - 1):
        page.keyboard.press("Space")
    assert page.evaluate("Reveal.isLastSlide()") and page.evaluate("Reveal.getSlidePastCount()") == total - 1
    assert page.locator(".reveal mjx-container").count() > 0
    assert trouble == []
    page.close()


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_cell_says_what_it_is_on_slides(lesson):
    kinds = {"slide", "subslide", "-", "skip", "notes"}
    for cell in nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", 4).cells:
        assert cell.metadata.get("slideshow", {}).get("slide_type") in kinds, cell.id
