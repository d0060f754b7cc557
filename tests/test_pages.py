"""The course as pages and as slides: built from the stored outputs, opened without a network."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
CELLS = {path.stem: nbformat.read(path, 4).cells for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
OTHERS = ["genindex", "search", *(f"docs/{path.stem}" for path in sorted((ROOT / "docs").glob("*.md")))]
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
def browser(chromium):
    return chromium.new_context(offline=True, viewport={"width": 1280, "height": HEIGHT})


def opened(browser, path):
    """The page with its figures and its mathematics, for which it asks nowhere outside its folder or in vain."""
    page, trouble = browser.new_page(), []
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or trouble.append(request.url))
    page.on("requestfailed", lambda request: trouble.append(f"failed: {request.url}"))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(path.as_uri())
    if page.evaluate("document.querySelector('script[src*=mathjax]') !== null"):
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise")
    page.wait_for_load_state("load")
    assert trouble == []
    assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.src)") == []
    return page


@pytest.mark.parametrize("lesson", CELLS)
def test_a_lesson_shows_its_figures_and_formulas(lesson, pages, browser):
    figures = sum("image/png" in output.get("data", {}) for cell in CELLS[lesson] for output in cell.get("outputs", ()))
    formulas = any("$" in cell.source for cell in CELLS[lesson] if cell.cell_type == "markdown")
    with opened(browser, pages / "notebooks" / f"{lesson}.html") as page:
        assert page.locator(".cell_output img").count() == figures
        assert (page.locator("mjx-container").count() > 0) == formulas and page.locator("h1").count() == 1


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_pages_open_too(name, pages, browser):
    opened(browser, pages / f"{name}.html").close()


def test_the_first_page_leads_to_the_contents(pages, browser):
    with browser.new_page() as page:
        page.goto((pages / "index.html").as_uri())
        page.wait_for_url((pages / "docs" / "index.html").as_uri())


@pytest.mark.parametrize("lesson", CELLS)
def test_every_slide_fits(lesson, slides, browser):
    with opened(browser, slides / f"{lesson}.html") as page:
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


def test_a_deck_can_be_walked_through(slides, browser):
    with opened(browser, slides / "01_receptive_fields.html") as page:
        total = page.evaluate("Reveal.getTotalSlides()")
        for _ in range(total - 1):
            page.keyboard.press("Space")
        assert page.evaluate("Reveal.isLastSlide()") and page.evaluate("Reveal.getSlidePastCount()") == total - 1
        assert page.locator(".reveal mjx-container").count() > 0
