"""A person who looks for brittle predictions, has one verified, and takes the list."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from engine.api import Study
from engine.applications.brittle.supports import find
from engine.study.tags import read_tags
from tests.browser.chromium import DESKTOP, server, settled
from tests.builders.calibrated_study import give_units

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def real(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A small study of real models, which retrain in a moment."""
    root = tmp_path_factory.mktemp("brittle") / "study"
    return give_units(Study.open(shutil.copytree(small_study.root, root)))


@pytest.fixture(scope="module")
def page(real: Study, browser: Browser) -> Iterator[Page]:
    with server(real.root) as url:
        context = browser.new_context(viewport=DESKTOP, base_url=url, accept_downloads=True)
        context.set_default_timeout(30_000)
        yield context.new_page()
        context.close()


def test_filter_verify_and_export(real: Study, page: Page, tmp_path: Path) -> None:
    found = find(real)
    row = int(found.ranked[0])
    table = real.table("test")
    label, id_ = str(table["label"][row]), str(table["id"][row])

    page.goto("brittle")
    expect(page.get_by_role("heading", name="Brittle predictions")).to_be_visible()
    page.get_by_role("button", name="Filters").click()
    page.locator(".st-key-label [role=combobox], .st-key-label input").first.click()
    page.get_by_role("option", name=label, exact=True).click()
    page.wait_for_url(re.compile("label="))
    settled(page)
    page.keyboard.press("Escape")

    page.locator(f'.gallery a.card[data-row="{row}"]').first.click()
    expect(page.get_by_text("Predicted, not verified")).to_be_visible()
    page.locator(".st-key-verify button").first.click()
    expect(page.locator(".dl-result", has_text=re.compile("Verified|Refuted"))).to_be_visible(
        timeout=90_000
    )
    word = "verified" if real.verifications()[-1].outcomes[0].flipped else "refuted"
    if word == "refuted":  # no longer brittle: only its status lists it
        page.goto(f"brittle?label={quote(label)}&status=refuted&test={id_}")
        settled(page)
    expect(
        page.locator(f'section:not([data-sign]) a.card[data-row="{row}"] .tag').first
    ).to_contain_text(word)

    page.get_by_label("Add a tag").fill("look at it")
    page.get_by_label("Add a tag").press("Enter")
    expect(page.get_by_role("button", name="look at it")).to_be_visible()
    assert read_tags(real, "mlp")[row].tags == ["look at it"]

    page.get_by_role("button", name=re.compile(r"^Export|download")).first.click()
    files = {}
    for name in ("CSV", "JSON", "Parquet"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        files[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(files[name])
    frame = pd.read_parquet(files["Parquet"]).set_index("id")
    assert set(frame["label"]) == {label}
    assert frame.loc[id_, "status"] == word
    assert list(frame.loc[id_, "tags"]) == ["look at it"]
    assert list(frame.loc[id_, "removal_rows"]) == found.removal(row).tolist()
    assert frame["support"].dtype == "int64"
    assert pd.read_csv(files["CSV"])["id"].tolist() == frame.index.tolist()
    assert [one["id"] for one in json.loads(files["JSON"].read_text())] == frame.index.tolist()


def test_the_address_brings_it_all_back(real: Study, page: Page) -> None:
    row = int(find(real).ranked[0])
    page.goto(f"brittle?test=test-{row}&removed=3&at_most=15")
    expect(page.get_by_text("The 3 removed")).to_be_visible()
    page.get_by_role("button", name="Filters (1)").click()
    expect(page.get_by_label("Remove at most")).to_have_value("15")
