"""Selecting in the gallery by mouse and keys, and slices that are kept."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from engine.api import Study
from engine.study.slices import saved_slices
from tests.browser.chromium import server, settled
from tests.builders.synthetic_study import write_study

pytestmark = pytest.mark.browser

FOCUSED = "document.activeElement.shadowRoot?.activeElement?.dataset.row"


def card(page: Page, row: int) -> Locator:
    return page.locator(f'a.card[data-row="{row}"]')


def selected(page: Page) -> list[int]:
    """What the gallery shows as selected."""
    boxes = page.locator("li.chosen a.card").all()
    return [int(box.get_attribute("data-row") or -1) for box in boxes]


def expect_selected(page: Page, rows: list[int], text: str) -> None:
    """The gallery, the words above it and the address agree."""
    expect(page.locator("li.chosen")).to_have_count(len(rows))
    assert selected(page) == rows
    if rows:
        expect(page.get_by_text(re.compile(f"^{len(rows)} selected$"))).to_be_visible()
        page.wait_for_url(re.compile(f"selected={re.escape(text)}(&|$)"))
    else:
        page.wait_for_url(re.compile("^(?!.*selected=)"))


def test_by_mouse(desktop: BrowserContext, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explore")
    expect(page.locator("a.card")).to_have_count(120)
    page.locator("li").filter(has=card(page, 3)).locator("input.pick").click()
    expect_selected(page, [3], "3")
    card(page, 6).click(modifiers=["Shift"])
    expect_selected(page, [3, 4, 5, 6], "3-6")
    card(page, 4).click(modifiers=["Shift"])  # The range shrinks: it began at 3.
    expect_selected(page, [3, 4], "3-4")
    page.locator("li").filter(has=card(page, 9)).locator("input.pick").click()
    expect_selected(page, [3, 4, 9], "3-4%2C9")

    link = page.url
    page.reload()
    expect_selected(page, [3, 4, 9], "3-4%2C9")
    assert page.url == link
    page.get_by_role("button", name="Clear").click()
    expect_selected(page, [], "")


def test_by_keys(desktop: BrowserContext, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explore")
    expect(page.locator("a.card")).to_have_count(120)
    settled(page)
    card(page, 2).focus()
    press = page.keyboard.press
    for _ in range(3):
        press("Shift+ArrowRight")
    expect_selected(page, [2, 3, 4, 5], "2-5")
    press("Shift+ArrowLeft")
    expect_selected(page, [2, 3, 4], "2-4")
    assert page.evaluate(FOCUSED) == "4"  # The answer of the server leaves the focus alone.
    press("ArrowRight")
    press("ArrowRight")
    press("Space")
    expect_selected(page, [2, 3, 4, 6], "2-4%2C6")
    press("Space")
    expect_selected(page, [2, 3, 4], "2-4")
    press("Control+a")
    expect_selected(page, list(range(120)), "0-119")
    press("Escape")
    expect_selected(page, [], "")
    press("Shift+ArrowDown")
    assert len(selected(page)) > 5


def test_quick_keys_lose_nothing(desktop: BrowserContext, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explore")
    expect(page.locator("a.card")).to_have_count(120)
    settled(page)
    card(page, 0).focus()
    for number in range(60):
        page.keyboard.press("Shift+ArrowRight")
        page.wait_for_timeout(40 if number % 3 else 230)  # Some fall into a run of the page.
    expect_selected(page, list(range(61)), "0-60")


def test_a_selection_is_opened_walked_and_left(desktop: BrowserContext, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explore?selected=5%2C7%2C30")
    expect_selected(page, [5, 7, 30], "5%2C7%2C30")
    card(page, 7).click()
    expect(page.get_by_role("heading", name="Supporting")).to_be_visible()
    page.go_back()
    expect_selected(page, [5, 7, 30], "5%2C7%2C30")
    page.get_by_role("button", name="Only these").click()
    expect(page.locator("a.card")).to_have_count(3)
    card(page, 5).click()
    expect(page.locator(".dl-where").first).to_contain_text("1 of 3 · 3 picked")
    settled(page)
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile("test=test-7$"))
    page.get_by_test_id("stMain").get_by_role("button", name="Test set").click()
    expect(page.locator("a.card")).to_have_count(3)
    page.get_by_role("button", name="3 picked").click()
    expect(page.locator("a.card")).to_have_count(120)


def test_a_selection_is_downloaded(desktop: BrowserContext, study: Study, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explore?selected=5%2C7")
    page.get_by_role("button", name="Export 2 selected").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    lines = csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8")))
    assert [line["id"] for line in lines] == ["test-5", "test-7"]


def test_confusion_cell_to_slice_to_saved_slice(desktop: BrowserContext, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", n_test=150)
    table = study.table("test").join(study.predictions("test"))
    with server(study.root) as url:
        page = desktop.new_page()
        page.goto(url)
        cell = page.locator("a.wrong").first
        number = int((cell.get_attribute("title") or "").split()[0])
        cell.click()
        expect(page.locator("a.card")).to_have_count(number)
        slice_url = page.url
        page.get_by_role("button", name="Saved slices (0)").click()
        page.get_by_label("Save this slice as").fill("Mixed up & <b>odd</b> 🦊")
        page.keyboard.press("Enter")
        expect(page.get_by_text("is saved")).to_be_visible()
        (kept,), _ = saved_slices(study)
        wanted = (table["label"] == kept.parameters["label"]) & (
            table["predicted"] == kept.parameters["predicted"]
        )
        assert np.count_nonzero(wanted) == number

        someone = desktop.browser
        assert someone is not None
        other = someone.new_context().new_page()
        other.goto(f"{url}/explore")
        expect(other.locator("a.card")).to_have_count(120)
        other.get_by_role("button", name="Saved slices (1)").click()
        other.get_by_role("button", name=f"Mixed up & <b>odd</b> 🦊 ({number} / 150)").click()
        expect(other.locator("a.card")).to_have_count(number)
        for name in ("label", "predicted"):
            assert re.search(rf"{name}=[^&]+", slice_url)[0] in other.url  # type: ignore[index]
        other.context.close()
        page.close()
