"""A person with texts: reading cards, searching, the same words, and texts that mean harm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from engine.api import Study
from engine.study.text_search import find_texts
from tests.browser.chromium import server, settled, sideways
from tests.builders.hostile_texts import HOSTILE_TEXTS
from tests.builders.synthetic_study import write_study

pytestmark = pytest.mark.browser
ROW = {name: row for row, name in enumerate(HOSTILE_TEXTS)}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("texts") / "study"
    texts = list(HOSTILE_TEXTS.values())
    return write_study(root, 60, 40, ("good", "سيئ"), display="text", texts=texts)


@pytest.fixture(scope="module")
def url(study: Study) -> Iterator[str]:
    with server(study.root) as url:
        yield url


def test_reading_and_searching_texts(
    desktop: BrowserContext, browser: Browser, url: str, study: Study
) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explore")
    cards = page.locator("a.card")
    expect(cards).to_have_count(40)
    settled(page)

    # Every card has two lines, whatever its text is, and nothing of it ran.
    heights = cards.evaluate_all("nodes => nodes.map(node => node.offsetHeight)")
    assert max(heights) - min(heights) <= 1
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    arabic = page.locator(f'a.card[data-row="{ROW["Arabic"]}"] .excerpt')
    assert arabic.evaluate("node => getComputedStyle(node).direction") == "rtl"

    # More of a text by the keyboard alone, from its card.
    long = page.locator("li", has=page.locator(f'a.card[data-row="{ROW["long"]}"]'))
    expect(long.get_by_role("button", name="More of test-")).to_be_visible()
    short = page.locator("li", has=page.locator(f'a.card[data-row="{ROW["Chinese"]}"]'))
    expect(short.locator("button")).to_be_hidden()
    long.locator("a.card").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    less = long.get_by_role("button", name="Less of test-")
    expect(less).to_have_attribute("aria-expanded", "true")
    expect(long).to_contain_text("139,000 more characters")
    less.click()
    expect(long.get_by_role("button", name="More of test-")).to_be_visible()

    # A search, kept in the URL and on the way to an explanation.
    wanted = find_texts(study, "test", '"this one is"', (None, 20)).tolist()
    page.get_by_role("button", name="Filters").click()
    page.locator(".st-key-text input").fill('"This one is"')
    page.locator(".st-key-text input").press("Enter")
    expect(cards).to_have_count(len(find_texts(study, "test", '"this one is"')))
    page.locator(".st-key-most input").fill("20")
    page.locator(".st-key-most input").press("Enter")
    expect(cards).to_have_count(len(wanted))
    page.keyboard.press("Escape")
    cards.first.click()
    expect(page.get_by_text(f"1 of {len(wanted)}")).to_be_visible()
    assert "text=%22This+one+is%22" in page.url
    assert "length=..20" in page.url

    # The texts with the same words, next to the supporters.
    page.get_by_role("radio", name="Words").click()
    similar = page.locator("section[data-sign=similar]")
    expect(similar.locator("mark").first).to_be_visible()
    expect(page.locator("[data-both]")).to_contain_text("most similar in words")
    assert "show=words" in page.url
    assert page.evaluate("window.hacked") is None
    assert sideways(browser, f"{url}/explore", "a.card") <= 0
    assert sideways(browser, f"{url}/explain?test=%23{ROW['one long word']}", "a.card") <= 0
