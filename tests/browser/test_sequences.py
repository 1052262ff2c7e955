"""A person with source and target texts: where did the model learn this answer?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from engine.api import Study
from engine.data.tokens import target_pieces
from engine.study.reader import StudyReader
from tests.browser.chromium import server, settled, sideways
from tests.browser.test_accessibility import axe_findings
from tests.browser.test_live import expect_rows, parameter
from tests.builders.copies import copy_of

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def facts(facts_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return copy_of(facts_study, tmp_path_factory.mktemp("facts") / "study")


@pytest.fixture(scope="module")
def facts_url(facts: Study) -> Iterator[str]:
    with server(facts.root) as url:
        yield url


def explained_by(page: Page, facts: Study, row: int, output: str) -> None:
    """The page explains this output of a test example, and its address says so."""
    expect(page).to_have_url(re.compile(rf"output={quote(output)}(&|$)"))
    found = facts.explain(row, 12, output=output)
    expect_rows(page, "support", np.array([one.row for one in found.supporting]))
    expect_rows(page, "oppose", np.array([one.row for one in found.opposing]))


def test_from_chosen_tokens_to_the_statement_and_what_if_it_were_gone(
    desktop: BrowserContext, browser: Browser, facts_url: str, facts: Study
) -> None:
    desktop.set_default_timeout(120_000)
    page = desktop.new_page()
    tests, right = facts.table("test"), facts.predictions("test")["correct"]
    row = int(np.flatnonzero(right & tests["target"].str.contains(" "))[0])
    pieces = target_pieces(tests["target"][row], StudyReader.open(facts.root).dataset.encoding)
    assert len(pieces) >= 3
    page.goto(f"{facts_url}/explain?test=test-{row}")
    expect(page.locator(".dl-subject")).to_contain_text(tests["target"][row])

    # Only the second token, by mouse: the choice begins with the first.
    page.get_by_role("button", name="Explain…").click()
    page.get_by_text("Some of the target's tokens").click()
    explained_by(page, facts, row, "tokens:1")
    tokens = page.get_by_role("toolbar", name="Target tokens").get_by_role("button")
    expect(tokens).to_have_count(len(pieces))
    tokens.nth(1).click()
    explained_by(page, facts, row, "tokens:1,2")
    tokens.nth(0).click()
    explained_by(page, facts, row, "tokens:2")
    assert not axe_findings(page)

    # The third one, too, by keyboard.
    settled(page)
    tokens.nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    explained_by(page, facts, row, "tokens:2,3")
    page.keyboard.press("Escape")
    asked = f"why “{pieces[1]}”, “{pieces[2]}”?"
    expect(page.get_by_role("heading", name=asked)).to_be_visible()

    # The statement that it comes from, and which of its tokens carry the score.
    supporters = [one.row for one in facts.explain(row, 12, output="tokens:2,3").supporting]
    train = facts.table("train")
    stating = [one for one in supporters if train["subject"][one] == tests["subject"][row]]
    card = page.locator(f'section[data-sign=support] a.card[data-row="{stating[0]}"]')
    expect(card).to_contain_text(train["text"][stating[0]])
    choice = page.get_by_label("Training text")
    choice.scroll_into_view_if_needed()
    settled(page)
    offered = page.get_by_role("option", name=re.compile(f"train-{stating[0]}\\b"))
    for _ in range(20):  # a list closes when the page scrolls
        if offered.count():
            break
        choice.press("ArrowDown")
        page.wait_for_timeout(300)
    offered.click()
    expect(page.locator(".dl-shaded").first).to_be_visible()
    assert parameter(page, "tokens") == f"train-{stating[0]}"
    settled(page)
    assert not axe_findings(page)

    # What if it had not been there?
    card.locator("xpath=..").get_by_role("checkbox").check()
    page.get_by_role("button", name=re.compile("What if")).first.click()
    expect(page.get_by_role("heading", name="Predicted effect")).to_be_visible()
    falls = page.locator("section[data-sign=oppose] a.card")
    expect(falls.first).to_be_visible()
    assert not axe_findings(page)
    assert sideways(browser, page.url, "a.card") <= 0
