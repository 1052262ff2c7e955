"""A person who removes training data: on the map, by class, by ids; and proves what it does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from engine.api import Study
from tests.browser.chromium import server, settled, sideways
from tests.conftest import SMALL_STUDY

pytestmark = pytest.mark.browser

TINY = (
    SMALL_STUDY.replace("train_limit = 300", "train_limit = 120")
    .replace("masks = 15", "masks = 20")
    .replace("epochs = 4", "epochs = 2")
)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that can be retrained."""
    study = Study.create(tmp_path_factory.mktemp("studies") / "tiny", TINY)
    study.build(workers=0)
    return study


@pytest.fixture(scope="module")
def real_url(real: Study) -> Iterator[str]:
    with server(real.root) as url:
        yield url


def choose_way(page: Page, way: str) -> None:
    page.get_by_role("radio", name=way).or_(
        page.get_by_role("button", name=way, exact=True)
    ).click()


def test_by_group_verified_and_kept(desktop: BrowserContext, real: Study, real_url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{real_url}/what-if")
    page.get_by_label(re.compile("How many of")).fill("5")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="What if these 5 were removed?").click()
    expect(page.get_by_role("heading", name="Predicted effect by class")).to_be_visible()
    expect(page.get_by_text("Removed", exact=True).first).to_be_visible()
    assert "set=" in page.url
    page.get_by_label("Models on each side").fill("2")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Verify by retraining").click()
    message = page.get_by_text(
        re.compile(r"2 models trained with these examples and 2 without: .* flip in most")
    )
    expect(message.first).to_be_visible(timeout=120_000)
    expect(page.get_by_role("region", name="Mean change of the margin by class")).to_be_visible()
    (kept,) = real.verifications()
    assert len(kept.removed) == 5
    assert len(kept.outcomes) == real.dataset.n_test
    page.reload()
    expect(message.first).to_be_visible()
    page.goto(f"{real_url}/what-if")
    page.get_by_role("button", name=re.compile("without 5 · 2 models")).click()
    expect(message.first).to_be_visible()


def test_lasso_then_gallery_then_what_if(desktop: BrowserContext, study: Study, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/map")
    expect(page.locator(".js-plotly-plot .plot-container")).to_be_visible()
    settled(page)
    box = page.locator(".js-plotly-plot .nsewdrag").bounding_box()
    assert box is not None
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.03)]
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*at[0])
    page.mouse.down()
    for x, y in at[1:]:
        page.mouse.move(x, y, steps=8)
    page.mouse.up()
    status = page.get_by_role("status").filter(has_text="training and")
    expect(status).to_contain_text("300 training and 150 test")
    expect(page.get_by_role("heading", name=re.compile("selected training"))).to_be_visible()
    settled(page)
    expect(status).to_contain_text(
        "300 training and 150 test"
    )  # It stays when the chart is drawn anew.
    page.reload()  # The selection is in the address.
    expect(status).to_contain_text("300 training and 150 test")
    page.get_by_role("button", name="Clear").click()
    expect(status).to_have_count(0)
    page.get_by_role("button", name="Select", exact=True).click()
    page.get_by_label(re.compile("Or training pictures by ids")).fill("train-3, 7, nobody")
    page.get_by_test_id("stFormSubmitButton").get_by_role("button").click()
    expect(page.get_by_text("No training picture has the id nobody")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator(".st-key-what_if_selected button").first.click()
    expect(page.get_by_role("heading", name="Predicted effect by class")).to_be_visible()
    expect(page.locator(".dl-title")).to_contain_text("2 selected training examples")


def test_pasted_ids_that_do_not_exist(desktop: BrowserContext, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/what-if")
    choose_way(page, "Ids")
    page.get_by_label(re.compile("Ids of training")).fill("train-1 nobody")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("No training picture has the id nobody; ignored.")).to_be_visible()
    page.get_by_role("button", name="What if these 1 were removed?").click()
    expect(page.get_by_role("heading", name="Predicted effect by class")).to_be_visible()
    page.get_by_role("button", name="Other set").click()
    choose_way(page, "A class")
    page.get_by_label(re.compile("How many of")).fill("5")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="What if these 5 were removed?").click()
    expect(page.locator(".dl-title")).to_contain_text("5 most influential")
    expect(page.get_by_test_id("stPopoverBody")).to_have_count(0)  # It would cover the result.


@pytest.mark.parametrize("path", ["map", "what-if"])
def test_a_phone_does_not_scroll_sideways(browser: Browser, url: str, path: str) -> None:
    assert sideways(browser, f"{url}/{path}", ".js-plotly-plot, .dl-notice") <= 0
