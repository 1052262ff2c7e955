"""The review of labels in Chromium: ten suspect labels are decided by keys and exported."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from dashboard.read.curation import FEWEST_TO_REVIEW, queue_rows
from tests.browser.chromium import server
from tests.builders.synthetic_study import write_study

pytestmark = pytest.mark.browser
MOST_CLICKS = 6


def reviewed(page: Page, count: int) -> None:
    expect(page.get_by_text(f"{count} of {FEWEST_TO_REVIEW} reviewed")).to_be_visible()


def test_ten_suspect_labels_in_six_clicks(desktop: BrowserContext, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", n_train=120, n_test=60, files=(".png",))
    clicks = 0
    page = desktop.new_page()
    with server(study.root) as url:
        page.goto(url)
        for name in ("Data", "Training set"):
            page.get_by_role("link", name=name, exact=True).click()
            clicks += 1
        page.get_by_text(f"Review {FEWEST_TO_REVIEW} labels").click()
        clicks += 1
        reviewed(page, 0)
        expect(page.get_by_role("button", name="Remove")).to_be_enabled()
        for number, key in enumerate("krxkrxkrxk", start=1):
            page.keyboard.press(key)
            reviewed(page, number)
        page.keyboard.press("u")
        reviewed(page, 9)
        page.keyboard.press("x")
        reviewed(page, 10)
        link = page.url
        page.reload()
        reviewed(page, 10)
        assert page.url == link
        page.go_back()
        expect(page.get_by_role("heading", name="Is this")).to_be_visible()
        page.get_by_role("button", name="Export 10 decisions").click()
        clicks += 1
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV").click()
        clicks += 1
    assert clicks <= MOST_CLICKS
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    found = study.label_suspicion()
    queue = queue_rows(found, found.order)[:10].tolist()
    keys = {"k": "keep", "r": "relabel", "x": "remove"}
    wanted = dict(zip(queue, (keys[key] for key in "krxkrxkrxx"), strict=True))
    assert {int(one["row"]): one["decision"] for one in rows} == wanted
