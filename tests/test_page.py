"""The page in a real browser, from disk: drawn, compared, saved, printed, read by keyboard and by a screen reader."""

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.ledger.intervals import mean as estimate
from experiments.recording.record import Record
from tests.made_up import HOSTILE, made_up, written

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDTHS = (360, 768, 1280)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a world in which all runs but one are finished."""
    outputs = tmp_path_factory.mktemp("outputs")
    return written(made_up(outputs), outputs)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; the tests that need it skip, by name, where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} to open the page with")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=list(QUIET))
        yield launched
        launched.close()


class Opened:
    """The page in a tab, with all that it said to the console and asked for."""

    def __init__(
        self, browser: Any, page: Path, width: int = 1280, theme: str = "light", height: int = 900, hash: str = ""
    ) -> None:
        still = {"color_scheme": theme, "reduced_motion": "reduce"}
        self.tab = browser.new_page(viewport={"width": width, "height": height}, **still)
        self.said: list[str] = []
        self.requested: list[str] = []
        self.tab.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.tab.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.tab.on("request", lambda request: self.requested.append(request.url))
        self.tab.goto(page.as_uri() + hash)
        self.tab.wait_for_selector("html[data-charts=drawn]", timeout=60_000)

    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen."""
        return self.tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def unfold(self) -> None:
        """Open everything folded, and wait for its charts."""
        self.tab.evaluate("for (const details of document.querySelectorAll('main details')) details.open = true")
        self.tab.wait_for_function(
            "[...document.querySelectorAll('.chart[data-spec]')].every(one => one.querySelector('svg'))"
        )

    def select(self, words: str, place: int = 0) -> None:
        """Find runs by words and select one."""
        self.tab.fill("#filter", words)
        self.tab.locator("#runs input").nth(place).check()

    def cells(self, table: str) -> dict[str, list[str]]:
        """The rows of a table by their heads."""
        rows = self.tab.eval_on_selector_all(
            f"#{table} tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return {head: values for head, *values in rows}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_draws_the_page_from_disk(page: Path, browser: Any, theme: str) -> None:
    opened = Opened(browser, page, theme=theme)
    opened.unfold()
    count = "all => all.map(one => one.querySelectorAll('svg path').length)"
    charts = opened.tab.eval_on_selector_all(".chart[data-spec]", count)
    assert len(charts) >= 12 and all(charts)
    assert opened.tab.locator("table.prose", has_text=HOSTILE).count() == 1
    label = opened.tab.locator(".chart svg text", has_text="<script>").first
    assert "<script>alert(1)" in (label.text_content() or "")
    style = "getComputedStyle(document.querySelector('{}')).{}"
    background = opened.tab.evaluate(style.format("body", "backgroundColor"))
    ink = opened.tab.evaluate(style.format(".chart text", "fill"))
    assert (brightness(background) > brightness(ink)) == (theme == "light")
    assert opened.said == []
    assert opened.requested == [page.as_uri()]
    opened.tab.close()


def brightness(colour: str) -> float:
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3]))


@pytest.mark.parametrize("width", WIDTHS)
def test_runs_are_compared_at_every_width(page: Path, browser: Any, width: int) -> None:
    opened = Opened(browser, page, width)
    assert opened.overflow() == 0
    too_wide = (
        "all => all.filter(one => one.getBoundingClientRect().right > innerWidth && !one.closest('.scroll'))"
        ".map(one => one.outerHTML.slice(0, 80))"
    )
    assert opened.tab.eval_on_selector_all("main *:not(.hidden, .ledger > thead *)", too_wide) == []
    opened.select("memory_lm infini_delta seed=0")
    assert opened.tab.locator("#compared").text_content() == "Select one more run to compare."
    assert opened.tab.locator("#comparison").is_hidden()
    opened.select("memory_lm full seed=1")
    opened.tab.wait_for_selector("#compared-curves svg path")
    settings, metrics = opened.cells("settings"), opened.cells("metrics")
    assert settings == {"seed": ["0", "1"], "part.kind": ["infini_delta", "full"]}  # each once, by its shorter name
    first, second, difference = (float(text.replace("−", "-")) for text in metrics["nonoverlapping/loss"])
    assert difference == pytest.approx(second - first, abs=1e-3)
    assert metrics["parameters"] == ["918,656", "918,656", "0"]
    legend = "texts => texts.map(text => text.textContent)"
    shown = opened.tab.eval_on_selector_all("#compared-curves .role-legend-label text", legend)
    assert len(shown) == 2 and shown[0].startswith("1 memory_lm") and shown[1].startswith("2 memory_lm")
    lines = opened.tab.eval_on_selector_all(
        "#compared-curves .mark-line path", "all => all.map(one => one.getAttribute('d'))"
    )
    assert len(set(lines)) == 2 and all(line.count("L") > 30 for line in lines)
    opened.select("positions <script>", 1)
    said = opened.tab.locator("#compared").text_content()
    assert said.startswith("3 runs compared") and "learning curves: 3" in said
    assert HOSTILE in opened.tab.locator("#selected").text_content()
    assert opened.cells("metrics")["nonoverlapping/loss"][2:] != []
    assert opened.overflow() == 0
    opened.tab.locator("#selected li button").first.click()
    assert opened.tab.locator("#selected li").count() == 2
    opened.tab.click("#clear")
    assert opened.tab.locator("#selected").is_hidden() and opened.tab.locator("#comparison").is_hidden()
    opened.tab.fill("#filter", "")
    assert opened.tab.locator("#runs :checked").count() == 0
    opened.tab.fill("#filter", "no such run")
    assert opened.tab.locator("#matches").text_content() == "0 of 145 runs found."
    assert opened.said == []
    opened.tab.close()


def values_of(page: Path, experiment: str) -> dict[str, list[float]]:
    """The first metric of an experiment's runs by their only factor besides the seed, from what the page holds."""
    (text,) = re.findall(r'id="compare-runs">(.*?)</script>', page.read_text(encoding="utf-8"))
    compared = json.loads(text)
    found: dict[str, list[float]] = {}
    for run in next(own for own in compared["experiments"] if own["name"] == experiment)["runs"]:
        names, levels = ([compared["texts"][text] for text in run["factors"][start::2]] for start in (0, 1))
        (level,) = [level for name, level in zip(names, levels) if name != "seed"]
        found.setdefault(level, []).append(run["values"][0])
    return found


@pytest.mark.parametrize("width", WIDTHS)
def test_levels_are_compared_and_the_address_keeps_the_choice(page: Path, browser: Any, width: int) -> None:
    opened = Opened(browser, page, width)
    opened.tab.select_option("#levels-experiment", "memory_lm")
    assert opened.tab.eval_on_selector("#levels-metric", "one => one.value") == "nonoverlapping/loss"
    opened.tab.wait_for_selector("#levels-curves svg path")
    heads = opened.tab.eval_on_selector_all("#levels-table thead th", "all => all.map(one => one.textContent)")
    assert heads == ["attention", "seeds", "nonoverlapping/loss", "95 % interval"]
    means = [float(row[1]) for row in opened.cells("levels-table").values()]
    assert means == sorted(means) and len(means) > 2
    opened.tab.click("#levels-table th:nth-child(3) button")
    assert [float(row[1]) for row in opened.cells("levels-table").values()] == sorted(means, reverse=True)
    recorded = values_of(page, "memory_lm")
    for name, (seeds, mean, interval) in opened.cells("levels-table").items():
        own = estimate(recorded[name])
        ends = [float(end) for end in interval.split(" to ")]
        assert int(seeds) == own.n and [float(mean), *ends] == pytest.approx([*own[1:]], rel=1e-3)
    opened.tab.fill("#levels-filter", "infini")
    assert set(opened.cells("levels-table")) == {name for name in recorded if "infini" in name}
    assert opened.overflow() == 0
    address = opened.tab.url
    again = Opened(browser, page, width)
    again.tab.goto(address)
    again.tab.reload()
    assert again.cells("levels-table") == opened.cells("levels-table")
    assert opened.said == again.said == []
    opened.tab.close()
    again.tab.close()


def test_a_page_without_records_works(browser: Any, tmp_path: Path) -> None:
    none = {job: Record(tmp_path / "none") for job in made_up(tmp_path, 0.0)}
    opened = Opened(browser, written(none, tmp_path), 360)
    assert opened.tab.locator(".banner").is_visible() and opened.overflow() == 0
    assert opened.said == []
    opened.tab.close()


def test_runs_are_selected_by_keyboard(page: Path, browser: Any) -> None:
    opened = Opened(browser, page)
    opened.tab.keyboard.press("Tab")
    assert opened.tab.evaluate("document.activeElement.textContent") == "Skip to the verdicts"
    assert opened.tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    opened.tab.focus("#filter")
    opened.tab.keyboard.type("gates mended")
    for key in ("Tab", "Tab", "Space", "Tab", "Space"):  # past the link that skips the list
        opened.tab.keyboard.press(key)
    assert opened.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert opened.tab.locator("#compared").text_content().startswith("2 runs compared")
    opened.tab.keyboard.press("Shift+Tab")
    opened.tab.keyboard.press("Shift+Tab")
    assert opened.tab.evaluate("document.activeElement.textContent") == "Skip the list of runs"
    opened.tab.keyboard.press("Enter")
    assert opened.tab.evaluate("document.activeElement.id") == "compared"
    opened.tab.close()


def test_charts_and_records_are_downloaded(page: Path, browser: Any) -> None:
    opened = Opened(browser, page, theme="dark")
    opened.select("memory_lm infini_delta", 0)
    opened.select("memory_lm infini_delta", 1)
    opened.tab.wait_for_selector("#compared-curves svg path")
    figures = {
        "positions-test-loss-by-position-scheme": "[data-name=positions-test-loss-by-position-scheme]",
        "comparison": "#compared-curves",
    }
    for name, chart in figures.items():
        buttons = opened.tab.locator(f"figure:has({chart}) [data-save]")
        for index, ending in enumerate(("svg", "png")):
            with opened.tab.expect_download() as waited:
                buttons.nth(index).click()
            assert waited.value.suggested_filename == f"{name}.{ending}"
            content = Path(waited.value.path()).read_bytes()
            if ending == "png":
                assert content.startswith(b"\x89PNG") and len(content) > 5_000
            else:
                text = content.decode()
                assert text.startswith("<svg") and "var(--" not in text and "<script" not in text
                assert "#fdfdfc" in text and "#5c646e" in text  # light paper and soft ink, though the page is dark
    assert opened.tab.locator(".stage").count() == 0
    with opened.tab.expect_download() as waited:
        opened.tab.get_by_role("link", name="Records as CSV").click()
    assert Path(waited.value.path()).read_bytes() == (page.parent / "records.csv").read_bytes()
    assert opened.said == []
    opened.tab.close()


def test_the_page_is_printed_open_and_whole(page: Path, browser: Any, tmp_path: Path) -> None:
    opened = Opened(browser, page, theme="dark")
    opened.tab.emulate_media(media="print")
    sections = opened.tab.locator("section.compare")
    assert sections.count() == 2 and not any(section.is_visible() for section in sections.all())
    assert opened.tab.locator(".exports").first.is_hidden()
    background = opened.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert brightness(background) > 700  # white paper, whatever the screen's theme
    opened.tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.tab.locator("main details:not([open])").count() == 0
    assert opened.tab.locator(".chart[data-spec]:not(:has(svg))").count() == 0
    cut = """all => all.filter(one =>
        one.getBoundingClientRect().right > one.closest('figure').getBoundingClientRect().right + 1).length"""
    assert opened.tab.eval_on_selector_all(".chart svg", cut) == 0
    assert opened.tab.locator("nav").locator("visible=true").count() == 0
    opened.tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.tab.locator("details[open]").count() == 0
    assert opened.tab.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    opened.tab.close()


def test_everything_on_the_page_has_a_name_and_its_place(page: Path, browser: Any) -> None:
    """What a screen reader goes by: landmarks, headings in order, names of controls and pictures, heads of tables."""
    opened = Opened(browser, page)
    opened.unfold()
    opened.select("memory_lm infini_delta", 0)
    opened.select("memory_lm infini_delta", 1)
    found = json.loads(
        opened.tab.evaluate("""JSON.stringify({
      levels: [...document.querySelectorAll('h1, h2, h3, h4')].filter(one => one.checkVisibility())
        .map(one => Number(one.tagName[1])),
      unnamed: [...document.querySelectorAll('button, a, input, summary')]
        .filter(one => !(one.textContent.trim() || one.ariaLabel || one.labels?.length)).map(one => one.outerHTML),
      pictures: [...document.querySelectorAll('[role=img], [role=region], nav')]
        .filter(one => !(one.ariaLabel || document.getElementById(one.getAttribute('aria-labelledby'))))
        .map(one => one.outerHTML.slice(0, 80)),
      tables: [...document.querySelectorAll('table')]
        .filter(one => !one.querySelector('th[scope=col]') || !(one.caption || one.getAttribute('aria-labelledby')))
        .map(one => one.outerHTML.slice(0, 80)),
      ids: [...document.querySelectorAll('[id]')].map(one => one.id)
        .filter((id, place, all) => all.indexOf(id) < place),
      links: [...document.querySelectorAll('a[href^="#"]')].map(one => one.hash.slice(1))
        .filter(id => !document.getElementById(id)),
    })""")
    )
    levels = found.pop("levels")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert found == {"unnamed": [], "pictures": [], "tables": [], "ids": [], "links": []}
    for landmark in ("main", "header", "footer", "nav[aria-label]", "[role=status]"):
        assert opened.tab.locator(landmark).count() >= 1
    opened.tab.close()
