"""The page in a real browser: it opens without a network, without errors, and the figures are there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from expunge.core.record import Record
from expunge.report import compare, draw, draw_comparison, draw_forecast

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(
        f"no browser found (looked for {', '.join(NAMES)}); install Debian's package `chromium` to run this test"
    )


def open_page(browser: str, address: str, folder: Path, *extra: str) -> tuple[str, str]:
    """Return the document after its scripts have run, and what the browser logged."""
    command = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        f"--user-data-dir={folder}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--window-size=1400,2400",
        "--virtual-time-budget=20000",
        "--enable-logging=stderr",
        *extra,
        "--dump-dom",
        address,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


def console(log: str) -> list[str]:
    return [line for line in log.splitlines() if "CONSOLE" in line]


def plots(document: str) -> dict[str, str]:
    """Return the inside of each drawn figure by its name."""
    parts = re.split(r'data-figure="([^"]+)"', document)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture(scope="module")
def opened(browser: str, drawn: tuple[Record, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return open_page(browser, drawn[1].as_uri(), tmp_path_factory.mktemp("profile"))


def test_figures_of_the_first_forget_set_are_drawn(opened: tuple[str, str], drawn: tuple[Record, Path]) -> None:
    document, log = opened
    assert console(log) == []
    found = plots(document)
    configurations = len(drawn[0].forget_sets[0].configurations)
    for name in ("0-plane-validation", "0-plane-retain", "0-public"):
        # Every configuration is a mark of its own in the drawing.
        assert len(re.findall(r'<path class="point', found[name])) >= configurations, name
    for name in ("0-time-forget", "0-time-validation"):
        runs = {c.run for c in drawn[0].forget_sets[0].configurations if c.method == "gradient_ascent"}
        assert len(re.findall(r'class="js-line"', found[name])) == len(runs), name
    assert "main-svg" not in found["1-plane-retain"]


def test_colours_come_from_the_scheme(opened: tuple[str, str]) -> None:
    figures = plots(opened[0])["0-plane-validation"]
    assert "var(--" not in figures
    assert "rgb(15, 122, 90)" in figures  # the star, in the light scheme's green


def test_a_link_opens_another_forget_set(browser: str, drawn: tuple[Record, Path], tmp_path: Path) -> None:
    dark = "--blink-settings=preferredColorScheme=0"
    document, log = open_page(browser, f"{drawn[1].as_uri()}#set-1", tmp_path, dark, "--window-size=500,2400")
    assert console(log) == []
    found = plots(document)
    assert "main-svg" in found["1-plane-retain"]
    assert "main-svg" not in found["0-plane-retain"]
    assert "rgb(79, 199, 156)" in found["1-plane-retain"]  # the star, in the dark scheme's green


def test_controls_of_the_page_work(browser: str, drawn: tuple[Record, Path], tmp_path: Path) -> None:
    """Clicks every kind of control, from a script that a copy without the policy lets in."""
    clicks = """
    const one = (selector) => document.querySelector(selector);
    one('[data-scale="linear"]').click();
    one('[data-legend="0"] button[data-method="gradient_ascent"]').click();
    const select = one('select[data-time="0"]');
    select.value = "scrub";
    select.dispatchEvent(new Event("change"));
    one("#scheme").click();
    const table = one('details[data-table="0"]');
    table.open = true;
    setTimeout(() => {
      const head = [...table.querySelectorAll("th")].find((cell) => cell.textContent === "forget");
      head.click();
      URL.createObjectURL = (blob) => {
        blob.text().then((text) => { document.body.dataset.csv = text; });
        return "#";
      };
      table.querySelector("[data-csv]").click();
    }, 500);
    """
    copy = tmp_path / "report.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", drawn[1].read_text())
    copy.write_text(
        text.replace("</body>", f"<script>window.addEventListener('load', () => {{{clicks}}})</script></body>")
    )
    document, log = open_page(browser, copy.as_uri(), tmp_path / "profile")
    assert console(log) == []
    forget = drawn[0].forget_sets[0]
    found = plots(document)
    # Gradient ascent is hidden, the others stay.
    hidden = sum(c.method == "gradient_ascent" for c in forget.configurations)
    points = len(re.findall(r'<path class="point', found["0-plane-retain"]))
    assert len(forget.configurations) - hidden <= points < len(forget.configurations)
    runs = {c.run for c in forget.configurations if c.method == "scrub"}
    assert len(re.findall(r'class="js-line"', found["0-time-forget"])) == len(runs)
    assert re.search(r'class="timing" data-method="gradient_ascent" hidden', document)
    assert re.search(r'class="timing" data-method="scrub">', document)
    assert 'data-scheme="dark"' in document
    assert "rgb(79, 199, 156)" in found["0-plane-retain"]
    # The table is sorted by KLoM on forget, words (infinite) after numbers.
    table = document.split('data-table="0"')[1].split("</table>")[0]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
    assert len(cells) == len(forget.configurations)
    values = [float(row[6]) if row[6] != "infinite" else float("inf") for row in cells]
    assert values == sorted(values)
    assert values[-1] == float("inf")
    csv = re.search(r'<body data-csv="([^"]*)"', document)
    assert csv is not None
    assert len(csv[1].strip().split("\n")) == 1 + len(forget.configurations)


def test_the_browser_would_report_a_broken_page(browser: str, drawn: tuple[Record, Path], tmp_path: Path) -> None:
    """The tests above can fail: an injected script and an outside image are refused, and the log says so."""
    broken = tmp_path / "broken.html"
    text = drawn[1].read_text()
    broken.write_text(
        text.replace("<main>", '<main><script>document.title = "x"</script><img src="https://example.org/x.png">', 1)
    )
    document, log = open_page(browser, broken.as_uri(), tmp_path / "profile")
    assert len(console(log)) >= 2
    assert "<title>Unlearning audit: digits</title>" in document


def test_forecast_page_is_drawn(browser: str, forecasts: ModuleType, tmp_path: Path) -> None:
    run = forecasts.write_run(tmp_path / "run")
    document, log = open_page(browser, draw_forecast(tmp_path / "run").as_uri(), tmp_path / "profile")
    assert console(log) == []
    found = plots(document)
    methods = run.forget_sets[0].forecast.methods
    for name in ("0-plane-validation", "0-plane-retain"):
        marks = len(re.findall(r'<path class="point', found[name]))
        # Every predicted point, a ring for the best of each method, and two landmarks.
        assert marks == sum(len(method.path) for method in methods) + len(methods) + 2, name
    shown = max((m for m in methods if not m.control), key=lambda m: m.outlook == "partly")
    assert len(re.findall(r'class="js-line"', found["0-time-forget"])) == len({p.run for p in shown.path})
    assert "main-svg" in found["0-change"]
    assert "var(--" not in found["0-plane-validation"]


def test_forecast_beside_outcome_is_drawn(
    browser: str, example: ModuleType, forecasts: ModuleType, tmp_path: Path
) -> None:
    record = example.example_record(members=40, epochs=4)
    forecasts.add_forecasts(record)
    example.write_example(tmp_path / "run", record)
    document, log = open_page(browser, draw(tmp_path / "run").as_uri(), tmp_path / "profile")
    assert console(log) == []
    found = plots(document)
    predicted = sum(len(method.path) for method in record.forget_sets[0].forecast.methods)
    assert len(re.findall(r'<path class="point', found["0-outcome"])) == predicted


def test_a_comparison_is_sorted_by_a_click(
    browser: str, drawn: tuple[Record, Path], example: ModuleType, tmp_path: Path
) -> None:
    example.example_record(members=40, epochs=3).save(tmp_path / "other")
    found = compare([drawn[1].parent, tmp_path / "other"])
    page = draw_comparison(found, tmp_path / "page.html")
    document, log = open_page(browser, page.as_uri(), tmp_path / "profile")
    assert console(log) == []
    clicks = """
    const head = [...document.querySelectorAll("[data-sort] button")].find((b) => b.textContent === "excess forget");
    head.click();
    head.click();
    """
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    page.write_text(
        text.replace("</body>", f"<script>window.addEventListener('load', () => {{{clicks}}})</script></body>")
    )
    document, log = open_page(browser, page.as_uri(), tmp_path / "profile")
    assert console(log) == []
    table = document.split("data-sort")[1].split("</table>")[0]
    assert 'aria-sort="descending"' in table
    cells = [re.search(r'data-value="([^"]*)"', row) for row in table.split("<tbody>")[1].split("<tr")[1:]]
    values = [float(cell[1]) for cell in cells if cell is not None]
    assert len(values) == len(found.lines)
    scored = [value for value in values if value == value]
    assert scored == sorted(scored, reverse=True)
    assert 0 < len(scored) < len(values)
    assert values[: len(scored)] == scored  # what was not run stands last
