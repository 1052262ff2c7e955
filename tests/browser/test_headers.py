"""The content policy: pages work under it, and none runs what it forbids."""

from __future__ import annotations

from urllib.request import urlopen

import pytest
from playwright.sync_api import BrowserContext

from tests.browser.chromium import settled

pytestmark = pytest.mark.browser

# One page of each kind: figures, cards, a chart, uploaders, text.
PAGES = {
    "": ".dl-study",
    "explain?test=test-0": "a.card",
    "map": ".js-plotly-plot .plot-container",
    "compare": "input[type=file]",
    "live": ".dl-study",
    "quality": ".dl-study",
}


def test_pages_keep_the_content_policy(desktop: BrowserContext, url: str) -> None:
    page = desktop.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on(
        "console",
        lambda one: broken.append(one.text) if "Content Security Policy" in one.text else None,
    )
    for path, awaited in PAGES.items():
        page.goto(f"{url}/{path}")
        page.locator(awaited).first.wait_for(state="attached")
        settled(page)
        assert not broken, f"{path}: {broken}"
    page.evaluate(
        """() => {
            const script = document.createElement("script")
            script.textContent = "window.ran = true"
            document.body.append(script)
        }"""
    )
    assert page.evaluate("window.ran") is None
    assert len(broken) == 1, broken
    page.close()


def test_no_other_site_shows_a_page_in_a_frame(desktop: BrowserContext, url: str) -> None:
    headers = dict(urlopen(url).headers)
    assert headers["x-frame-options"] == "DENY"
    page = desktop.new_page()
    refused: list[str] = []
    page.on("console", lambda one: refused.append(one.text))
    page.set_content(f'<iframe src="{url}"></iframe>')
    page.wait_for_timeout(1000)
    assert any("frame-ancestors" in one or "X-Frame-Options" in one for one in refused), refused
    page.close()
