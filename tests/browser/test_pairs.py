"""A person with pictures and captions: from recall to a confusion, its causes, and a caption of
one's own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from engine.api import Study
from engine.applications.found_instead import found_instead
from engine.applications.live import Query, run_query
from engine.store.quantities import ACCURACY
from engine.study.retrieval import read_recall
from tests.applications.test_live_pairs import picture_of
from tests.browser.chromium import server, settled, sideways
from tests.browser.test_live import expect_rows, give, parameter
from tests.builders.copies import copy_of

pytestmark = pytest.mark.browser
CAPTION = "a large red circle"


@pytest.fixture(scope="module")
def shapes(pairs_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return copy_of(pairs_study, tmp_path_factory.mktemp("pairs") / "study")


@pytest.fixture(scope="module")
def pairs_url(shapes: Study) -> Iterator[str]:
    with server(shapes.root) as url:
        yield url


def cards_are_pairs(page: Page, section: str) -> None:
    """Each card of a section has its own picture and its caption."""
    cards = page.locator(f"{section} a.card")
    expect(cards.first.locator(".excerpt")).not_to_be_empty()
    pictures = cards.locator(".thumb").evaluate_all(
        "nodes => nodes.map(n => getComputedStyle(n).backgroundImage + n.style.backgroundPosition)"
    )
    assert len({*pictures}) == cards.count() > 1
    assert all("sprites" in picture for picture in pictures)


def test_from_recall_to_what_a_pair_depends_on(
    desktop: BrowserContext, pairs_url: str, shapes: Study
) -> None:
    desktop.set_default_timeout(120_000)
    page = desktop.new_page()
    page.goto(pairs_url)
    expect(page.get_by_text("R@1", exact=True)).to_be_visible()
    of_captions = ACCURACY.text(read_recall(shapes)["caption"][1])
    expect(page.get_by_text(f"captions {of_captions}").first).to_be_visible()

    # A pair that finds another one.
    page.get_by_role("button", name="Worst mistake").click()
    expect(page.get_by_role("heading", name="What determines how well")).to_be_visible()
    row = int(parameter(page, "test").removeprefix("test-"))
    assert not shapes.predictions("test")["correct"][row]
    explained = shapes.explain(row, 12)
    expect_rows(page, "support", np.array([one.row for one in explained.supporting]))
    cards_are_pairs(page, "section[data-sign=support]")
    instead = found_instead(shapes, row, "towers")
    heading = page.get_by_role("heading", name="that is found instead")
    expect(heading).to_have_count(len(instead))
    expect(page.locator(".dl-subject .dl-picture")).to_be_visible()

    # Each side has training pairs of its own.
    page.get_by_role("button", name="Explain…").click()
    page.get_by_text("How much the picture speaks for its caption").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="how much the picture speaks")).to_be_visible()
    side = shapes.explain(row, 12, output="picture-side")
    expect_rows(page, "support", np.array([one.row for one in side.supporting]))

    # What it was taken for, and back.
    page.get_by_role("link", name=re.compile(f"test-{instead[0].row}\\b")).first.click()
    expect(page.get_by_text(f"for test-{instead[0].row}").first).to_be_visible()
    page.go_back()
    expect(page.get_by_text(f"for test-{row}").first).to_be_visible()

    # What if its opposers had not been there?
    settled(page)
    page.get_by_role("button", name=re.compile("What if these .* were removed")).click()
    expect(page.get_by_text(re.compile(f"of test pair test-{row}")).first).to_be_visible()


def test_a_caption_then_a_picture_of_one_s_own(
    desktop: BrowserContext, browser: Browser, pairs_url: str, shapes: Study
) -> None:
    desktop.set_default_timeout(120_000)
    page = desktop.new_page()
    page.goto(f"{pairs_url}/live")
    expect(page.get_by_text("Which picture or caption should be explained?")).to_be_visible()
    page.get_by_label("Your caption").fill(CAPTION)
    page.get_by_label("Your caption").press("Control+Enter")
    answer = run_query(Query(shapes.root, "towers", {"text": CAPTION}))
    assert answer.completed is not None
    expect(page.get_by_role("heading", name="The pictures that models find")).to_be_visible()
    expect_rows(page, "similar", answer.completed.rows[:5])
    expect_rows(page, "support", answer.support[:12])
    cards_are_pairs(page, "section[data-sign=similar]")

    # Another of the pictures that were found.
    second = int(answer.completed.rows[1])
    page.get_by_role("combobox", name="Explained with the picture").click()
    page.get_by_role("option").nth(1).click()
    other = run_query(Query(shapes.root, "towers", {"text": CAPTION}, completed_by=second))
    expect_rows(page, "support", other.support[:12])

    # With a picture of one's own it is a pair.
    content = picture_of(shapes, 5)
    give(page, content)
    whole = run_query(Query(shapes.root, "towers", {"picture": content, "text": CAPTION}))
    expect_rows(page, "support", whole.support[:12])
    expect(page.get_by_text("for your pair")).to_be_visible()
    expect(page.get_by_role("heading", name="that models find")).to_have_count(0)

    # Bad parts get one line, and the good one stays.
    give(page, b"I am no picture.")
    panel = page.locator(".dl-notice[data-kind=error]")
    expect(panel).to_contain_text("The picture is damaged or no picture of a known format")
    page.get_by_role("button", name="Remove").first.click()
    expect_rows(page, "support", answer.support[:12])
    assert page.locator("[data-testid=stException]").count() == 0
    assert sideways(browser, f"{pairs_url}/test-set", "a.card") <= 0
    assert sideways(browser, f"{pairs_url}/explain?test=test-3", "a.card") <= 0
