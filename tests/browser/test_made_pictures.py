"""A person with a picture that the models made: which training pictures is it from?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from engine.api import Study
from tests.browser.chromium import server, settled, sideways
from tests.browser.test_accessibility import axe_findings
from tests.browser.test_live import expect_rows
from tests.builders.copies import copy_of

pytestmark = pytest.mark.browser

MADE = "seed-6-by-1"


@pytest.fixture(scope="module")
def made(made_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return copy_of(made_study, tmp_path_factory.mktemp("made") / "study")


@pytest.fixture(scope="module")
def made_url(made: Study) -> Iterator[str]:
    with server(made.root) as url:
        yield url


def explained_by(page: Page, made: Study, output: str | None) -> None:
    """The page shows the training pictures that support and oppose this output."""
    found = made.explain(MADE, 12, output=output)
    expect_rows(page, "support", np.array([one.row for one in found.supporting]))
    expect_rows(page, "oppose", np.array([one.row for one in found.opposing]))


def test_from_a_frame_to_its_supporters_and_what_if_they_were_gone(
    desktop: BrowserContext, browser: Browser, made_url: str, made: Study
) -> None:
    desktop.set_default_timeout(120_000)
    page = desktop.new_page()
    page.goto(f"{made_url}/explain?test={MADE}")
    expect(
        page.get_by_role("heading", name="Which training pictures support this one?")
    ).to_be_visible()
    expect(page.locator(".dl-frames .dl-still")).to_have_count(3)
    explained_by(page, made, None)
    assert not axe_findings(page)

    # Back toward noise, frame by frame.
    for steps, timestep in (("1-14", 1), ("15-39", 28), ("40-50", 50)):
        settled(page)
        slider = page.get_by_role("slider", name="From noise to the picture")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        output = f"timesteps:{steps}"
        expect(page).to_have_url(re.compile(rf"output={quote(output)}(&|$)"))
        expect(page.get_by_text(f"Seen at timestep {timestep}")).to_be_visible()
        explained_by(page, made, output)
    supporters = [
        made.explain(MADE, 12, output=f"timesteps:{s}").supporting for s in ("1-14", "40-50")
    ]
    assert len({tuple(one.row for one in side) for side in supporters}) == 2, "they change"
    settled(page)
    assert not axe_findings(page)

    # The browser's Back leads to the frame before.
    page.go_back()
    explained_by(page, made, "timesteps:15-39")

    # How it changes along the way.
    page.get_by_role("button", name=re.compile("from noise to the picture")).click()
    expect(page.locator(".dl-steps").first).to_be_visible()
    settled(page)
    assert not axe_findings(page)
    assert sideways(browser, page.url, ".dl-steps") <= 0

    # What if its supporters had not been there?
    page.get_by_role("button", name=re.compile("What if these supporters")).click()
    expect(page.get_by_role("heading", name="Predicted effect")).to_be_visible()
    expect(page.locator("a.card").first).to_be_visible()
    settled(page)
    assert not axe_findings(page)
    assert sideways(browser, page.url, "a.card") <= 0
