"""One state, one address: what is chosen goes along to every page, and Back, reload and a link
restore it."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from dashboard.workspaces import WORKSPACES
from tests.browser.chromium import settled
from tests.builders.synthetic_study import CLASSES

pytestmark = pytest.mark.browser


def address(page: Page) -> tuple[str, dict[str, str]]:
    """The path and the parameters of the page's URL."""
    parts = urlsplit(page.url)
    return parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}


def entries(page: Page) -> int:
    return int(page.evaluate("history.length"))


def open_page(page: Page, area: str, title: str) -> None:
    """Click a link of the header, in its first row or in the one of the workspace's pages."""
    link = page.get_by_role("navigation", name=area, exact=True).get_by_role(
        "link", name=title, exact=True
    )
    link.click()
    expect(link).to_have_attribute("aria-current", "page")


def test_what_is_chosen_goes_along_to_every_workspace_and_back(
    desktop: BrowserContext, url: str
) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explore?label={CLASSES[3]}&k=6")  # an old address
    picks = page.locator("input.pick")
    expect(page.locator("a.card").first).to_be_visible()
    views = [page.url]
    assert address(page)[0] == "/test-set"
    assert entries(page) == 2  # about:blank and this one: a default adds none

    page.get_by_role("combobox", name="Method").click()
    page.get_by_role("option").nth(1).click()
    page.wait_for_url(lambda now: now != views[-1])
    views.append(page.url)
    settled(page)
    page.locator("a.card").first.hover()
    picks.first.click()
    page.wait_for_url("**selected=**")
    views.append(page.url)
    chosen = address(page)[1]
    assert chosen["method"] != parse_qs(urlsplit(views[0]).query)["method"][0]
    assert (chosen["label"], chosen["k"]) == (CLASSES[3], "6")

    for workspace in (*WORKSPACES[2:], WORKSPACES[0], WORKSPACES[1]):
        open_page(page, "Workspaces", workspace.title)
        assert address(page) == (f"/{workspace.pages[0].address}", chosen)
        views.append(page.url)
    open_page(page, "Data", "Training set")
    views.append(page.url)
    assert address(page) == ("/training-set", chosen)
    assert entries(page) == 1 + len(views)  # one a click

    for view in reversed(views[:-1]):
        page.go_back()
        page.wait_for_url(view)
    for view in views[1:3]:
        page.go_forward()
        page.wait_for_url(view)
    expect(picks.first).to_be_checked()
    settled(page)
    assert page.url == views[2]
    page.reload()
    expect(picks.first).to_be_checked()
    assert page.url == views[2]
    assert entries(page) == 1 + len(views)


def test_a_link_in_a_new_tab_has_the_state_of_the_moment(desktop: BrowserContext, url: str) -> None:
    """The header was drawn before the selection was made."""
    page = desktop.new_page()
    page.goto(f"{url}/test-set")
    page.locator("a.card").first.hover()
    page.locator("input.pick").first.click()
    page.wait_for_url("**selected=0**")
    with desktop.expect_page() as opened:
        page.get_by_role("link", name="Predictions").click(modifiers=["ControlOrMeta"])
    expect(opened.value.get_by_role("navigation", name="Predictions")).to_be_visible()
    assert address(opened.value)[1]["selected"] == "0"
