"""A change that reaches the server after it has drawn another page."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.chromium import settled

pytestmark = pytest.mark.browser

# A gallery sends a selection a fifth of a second after it was made; here, when the test says so.
HOLD = """() => {
  const now = window.setTimeout
  window.held = []
  window.setTimeout = (call, after, ...rest) =>
    after === 200 ? window.held.push(() => call(...rest)) : now(call, after, ...rest)
}"""
RELEASE = "() => window.held.splice(0).forEach(call => call())"


def test_a_late_selection_is_ignored(desktop: BrowserContext, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/test-set")
    pick = page.locator("input.pick").first
    expect(pick).to_be_attached()
    settled(page)
    page.evaluate(HOLD)
    pick.evaluate("box => box.click()")  # without the focus, whose loss sends it at once
    page.get_by_role("link", name="Predictions").evaluate("link => link.click()")
    expect(page.get_by_role("navigation", name="Predictions")).to_be_visible()
    settled(page)
    page.evaluate(RELEASE)
    page.wait_for_timeout(500)
    settled(page)
    expect(page.get_by_text("This page could not be shown")).to_have_count(0)
    expect(page.get_by_role("navigation", name="Predictions")).to_be_visible()


def test_a_selection_is_sent_before_the_focus_goes_elsewhere(
    desktop: BrowserContext, url: str
) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/test-set")
    pick = page.locator("input.pick").first
    expect(pick).to_be_attached()
    settled(page)
    page.evaluate(HOLD)
    pick.click()
    page.get_by_role("link", name="Predictions").focus()
    page.wait_for_url("**selected=0**")
