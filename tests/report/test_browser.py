"""The page in a real browser: it opens without a network, without errors, and the figures are there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from expunge.core.record import Record

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


def open_page(browser: str, page: Path, folder: Path, *extra: str) -> tuple[str, str]:
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
        page.as_uri(),
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
    return open_page(browser, drawn[1], tmp_path_factory.mktemp("profile"))


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
    copy = tmp_path / "report.html"
    # A browser started from a terminal takes no fragment on a file; the page is told by a redirect within itself.
    copy.write_bytes(drawn[1].read_bytes())
    done = subprocess.run(
        [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=420,2400",
            "--blink-settings=preferredColorScheme=0",
            "--virtual-time-budget=20000",
            "--enable-logging=stderr",
            "--dump-dom",
            f"{copy.as_uri()}#set-1",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert console(done.stderr) == []
    found = plots(done.stdout)
    assert "main-svg" in found["1-plane-retain"]
    assert "main-svg" not in found["0-plane-retain"]
    assert "rgb(79, 199, 156)" in found["1-plane-retain"]  # the star, in the dark scheme's green


def test_the_browser_would_report_a_broken_page(browser: str, drawn: tuple[Record, Path], tmp_path: Path) -> None:
    """The tests above can fail: an injected script and an outside image are refused, and the log says so."""
    broken = tmp_path / "broken.html"
    text = drawn[1].read_text()
    broken.write_text(
        text.replace("<main>", '<main><script>document.title = "x"</script><img src="https://example.org/x.png">', 1)
    )
    document, log = open_page(browser, broken, tmp_path / "profile")
    assert len(console(log)) >= 2
    assert "<title>Unlearning audit: digits</title>" in document
