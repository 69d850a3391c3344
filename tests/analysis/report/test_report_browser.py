"""The report in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from report_page import fill

from metaformer_ablate.spec.plan import plan

NO_EPOCH = {"epoch": [], "train_loss": [], "val_loss": [], "val_top1": []}
ONE_EPOCH = {"epoch": [1], "train_loss": [2], "val_loss": [None], "val_top1": [3]}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

# The ratio of the WCAG 2 between text and what is behind it, of every element that has text of its own.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const part of document.querySelectorAll("body *:not(script)")) {
    const own = [...part.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !part.checkVisibility()) continue;
    const svg = part instanceof SVGElement;
    let behind = part;
    while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const over = behind ? getComputedStyle(behind).backgroundColor : "#fff";
    const [a, b] = [getComputedStyle(part)[svg ? "fill" : "color"], over].map((colour) => light(rgba(colour)));
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), part.textContent.slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def address(environment: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    fill(folder)
    assert call("report", cwd=folder).code == 0
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """visit(color_scheme="dark", ...): the page in a fresh window. At the end nothing was loaded and nothing failed."""
    contexts, loaded, errors = [], [], []

    def open_page(**options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: loaded.append(request.url.partition("#")[0]))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert set(loaded) == {address}
    assert errors == []


def results(page: Any) -> Any:
    return page.locator('[id="pooling_size.digits"] table.results')


def column(table: Any, number: int) -> list[str]:
    return table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()


def test_it_loads_and_runs_nothing_but_itself(visit: Callable[..., Any]) -> None:
    page = visit()
    assert page.title() == "MetaFormer ablations"
    assert page.evaluate("window.hacked") is None
    assert page.locator("#tools").is_visible()
    assert page.locator("h1").is_visible()


def test_columns_sort_by_mouse(visit: Callable[..., Any]) -> None:
    table = results(visit())
    before = column(table, 2)
    head = table.locator("th", has_text="Top-1").first
    assert head.get_attribute("aria-sort") == "none"
    for order, sign in (("ascending", 1), ("descending", -1)):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        shown = column(table, 5)
        assert shown[-1] == "missing"  # what has no number is last either way
        means = [float(text.split()[0]) for text in shown[:-1]]
        assert means == sorted(means, key=lambda mean: sign * mean) and len(set(means)) == 3
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert column(table, 2) == before


def test_columns_sort_by_keyboard_and_say_so(visit: Callable[..., Any]) -> None:
    page = visit()
    table = results(page)
    button = table.locator("th", has_text="Row").locator("button")
    button.focus()
    assert button.evaluate("b => b.matches(':focus-visible') && getComputedStyle(b).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    names = column(table, 2)
    assert names == sorted(names, reverse=True)
    assert page.locator("#said").inner_text() == "sorted by Row, descending"
    page.keyboard.press("Tab")  # on to the next column
    assert page.evaluate("document.activeElement.textContent") == "Params (M)"


def test_numbers_sort_as_numbers(visit: Callable[..., Any]) -> None:
    page = visit()
    page.evaluate(
        """() => {
          const rows = [...document.querySelector('[id="pooling_size.digits"] table.results').tBodies[0].rows];
          rows.forEach(({ cells }, i) => {
            cells[10].textContent = ["9.5", "1,000", "80.1", ""][i];
            delete cells[10].dataset.v;
          });
        }"""
    )
    table = results(page)
    table.locator("th", has_text="Paper").locator("button").click()
    assert column(table, 11) == ["9.5", "80.1", "1,000", ""]


def test_the_filter_leaves_one_recipe(visit: Callable[..., Any]) -> None:
    page = visit()
    articles = page.locator("#tables article")
    assert articles.count() == 5
    page.locator("#recipe").focus()
    page.keyboard.type("fashion")
    page.keyboard.press("Enter")
    shown = page.locator("[data-recipe]:visible").evaluate_all("all => all.map((one) => one.dataset.recipe)")
    assert set(shown) == {"fashion_mnist"}
    assert page.locator("#said").inner_text() == "2 tables under fashion_mnist"
    assert not page.locator("#other").is_visible()  # nothing of it is left
    assert page.locator("section.experiment:visible").count() == 2
    page.locator("#recipe").select_option("")
    assert page.locator("#tables article:visible").count() == 5


def test_a_number_opens_its_runs(visit: Callable[..., Any]) -> None:
    page = visit()
    link = results(page).locator("tbody tr").nth(1).locator("td a", has_text="97.").first
    link.focus()
    page.keyboard.press("Enter")
    details = page.locator("details:target")
    details.locator("svg").first.wait_for()
    assert details.get_attribute("open") is not None
    assert column(details.locator("table"), 2) == ["0", "1"]
    ids = [plan("pooling_size").spec("pool5", seed).run_id for seed in (0, 1)]
    assert column(details.locator("table"), 1) == ids
    assert details.locator("svg").first.locator("polyline").count() == 2  # a seed each
    assert details.locator("svg").nth(1).locator("polyline.dashed").count() == 2
    assert "seed 0" in details.locator("figcaption").first.inner_text()
    assert details.locator("a", has_text="E1").count() + details.locator("a", has_text="E2").count() == 2
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    details.locator("summary").click()
    link.click()  # the same address again
    assert details.get_attribute("open") is not None


def test_a_link_into_what_is_filtered_out_brings_it_back(visit: Callable[..., Any]) -> None:
    page = visit()
    page.locator("#recipe").select_option("fashion_mnist")
    run = plan("pooling_size").spec("pool3", 0).run_id
    page.evaluate(f"location.hash = '#run-{run}'")
    row = page.locator(f"#run-{run}")
    row.wait_for(state="visible")
    assert page.locator("#recipe").input_value() == ""


def test_a_run_without_an_epoch_and_with_one_are_drawn(visit: Callable[..., Any]) -> None:
    page = visit()
    for curve, shapes in ((NO_EPOCH, 0), (ONE_EPOCH, 1)):
        page.reload()
        page.evaluate(
            f"""() => {{
              const island = document.getElementById("curves"), all = JSON.parse(island.textContent);
              for (const run in all.runs) all.runs[run] = {json.dumps(curve)};
              island.textContent = JSON.stringify(all);
            }}"""
        )
        page.locator("details.variant summary").first.click()
        first = page.locator("details.variant").first
        first.locator("figcaption").first.wait_for()
        assert min(1, first.locator("circle").count()) == shapes
        assert ("no epoch was finished" in first.locator("figcaption").first.inner_text()) == (not shapes)


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_sideways_scrolling(visit: Callable[..., Any], width: int) -> None:
    page = visit(viewport={"width": width, "height": 800}, is_mobile=True, has_touch=True)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.locator("details.variant svg").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth + 1).length"
    assert page.evaluate(wide) == 0, "nor does a table scroll in its box"
    row = results(page).locator("tbody tr").nth(1)
    name, mean = (row.locator(place).first.bounding_box() for place in ("th", "td.whole"))
    assert name["y"] + name["height"] <= mean["y"] + 1 and mean["width"] > 100
    label = row.locator("td.whole").first.evaluate("cell => getComputedStyle(cell, '::before').content")
    assert label == '"Top-1 (%)"', "each number has its heading beside it"
    figures = page.locator('[id="pooling_size.digits"] figure svg:visible')
    assert figures.count() == 5 and all(figures.nth(i).bounding_box()["width"] > width - 40 for i in range(5))


def test_figures_use_the_width_of_a_screen(visit: Callable[..., Any]) -> None:
    page = visit(viewport={"width": 1280, "height": 800})
    figures = page.locator('[id="pooling_size.digits"] figure svg:visible')
    assert figures.count() == 5
    widths = [figures.nth(i).bounding_box()["width"] for i in range(5)]
    assert [width > 1200 for width in widths] == [True, True, False, False, True] and min(widths) > 560
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(visit: Callable[..., Any], scheme: str) -> None:
    page = visit(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.locator("details.variant svg").first.wait_for()
    behind = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert behind == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}[scheme]
    found = page.evaluate(CONTRAST)
    assert len(found) > 300
    assert min(found)[0] >= 4.5, min(found)


def test_without_javascript_everything_can_be_read(visit: Callable[..., Any]) -> None:
    page = visit(java_script_enabled=False)
    assert not page.locator("#tools").is_visible()
    assert results(page).locator("button").count() == 0
    assert results(page).locator("tbody tr").count() == 4
    run = page.locator(f"#run-{plan('pooling_size').spec('pool3', 0).run_id}")
    assert not run.is_visible()
    page.locator("details", has=run).locator("summary").click()
    assert run.is_visible()
    assert "1:\xa040.0" in run.inner_text()


def test_print_shows_what_is_closed_on_the_screen(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit()
    assert not page.locator("details li").first.is_visible()
    page.emulate_media(media="print")
    run = plan("pooling_size").spec("pool3", 0).run_id
    for place in ("details li", "details pre", f"#run-{run}"):
        assert page.locator(place).first.bounding_box()["height"] > 5, place
    assert not page.locator("#tools").is_visible()
    # A4 at 96 dots an inch, less the margins: nothing may stick out.
    page.set_viewport_size({"width": 687, "height": 1000})
    wide = page.evaluate(
        "[...document.querySelectorAll('table, pre, svg')].filter((t) => t.getBoundingClientRect().right > 690).length"
    )
    assert wide == 0
    pdf = page.pdf(path=tmp_path / "report.pdf")
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
