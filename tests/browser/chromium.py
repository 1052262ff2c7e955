"""A real Chromium, and a server to point it at."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from engine.running.launch import _start, _stop

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EXECUTABLE = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
DESKTOP: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def server(root: Path, port: int | None = None) -> Iterator[str]:
    """The dashboard's server for a study; gives its address."""
    child, url = _start(root, "127.0.0.1", port)
    try:
        yield url
    finally:
        _stop(child)


def settled(page: Page) -> Page:
    """Wait until the page's script has run and its pictures are there."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(150)
    return page


def sideways(browser: Browser, url: str, wait_for: str) -> int:
    """Pixels that a page is wider than a phone, once what it waits for is there."""
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    page.goto(url)
    page.locator(wait_for).first.wait_for(timeout=30_000)
    settled(page)
    wide: int = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
    context.close()
    return wide
