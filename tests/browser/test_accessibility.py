"""axe-core in every page: it may find nothing, however small.

`npm install --prefix tests/browser` (or AXE=/path/to/axe.min.js) brings it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from engine.api import Study
from engine.applications.unlearning.audit_record import read_audits
from engine.study.removal_sets import keep_set
from tests.browser.chromium import DESKTOP, settled
from tests.builders.synthetic_audit import write_audit

pytestmark = pytest.mark.browser

AXE = Path(
    os.environ.get("AXE") or Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
)
PAGES = {
    "overview": "",
    "explore": "test-set?result=wrong",
    "explore with a selection": "test-set?selected=3-6",
    "explore with small thumbnails": "test-set?size=small",
    "explore without a match": "test-set?id=nobody",
    "training set": "training-set",
    "review of labels": "training-set?view=review",
    "explain": "explain?test=test-5",
    "explain with similar": "explain?test=test-5&show=both",
    "explain without example": "explain",
    "training": "training?train=train-5&test=test-5",
    "training without example": "training",
    "map": "map?train=train-5",
    "what if": "what-if",
    "what if of a set": "what-if?set={set}",
    "unlearn": "unlearn",
    "what unlearning would do": "unlearn?set={set}",
    "an audit of unlearning": "unlearn?set={audited}",
    "before and after unlearning": "unlearn?set={audited}&pane=before",
    "compare": "compare",
    "quality": "quality",
    "quality of one example": "quality?test=test-5",
    "jobs": "jobs",
    "provenance": "provenance",
}


@pytest.fixture(scope="module")
def pages(browser: Browser) -> Iterator[dict[str, Page]]:
    """A tab for each color scheme. Each address is loaded anew, but the scripts only once."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    contexts = {
        scheme: browser.new_context(viewport=DESKTOP, color_scheme=scheme, bypass_csp=True)
        for scheme in schemes
    }
    yield {scheme: context.new_page() for scheme, context in contexts.items()}
    for context in contexts.values():
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_no_finding(pages: dict[str, Page], study: Study, url: str, path: str, scheme: str) -> None:
    path = path.replace("{set}", keep_set(study, range(20), "the first 20").key)
    if "{audited}" in path:
        path = path.replace("{audited}", audited_set(study))
    page = pages[scheme]
    page.goto(f"{url}/{path}")
    expect(page.locator("a.card, .dl-stages, .dl-notice, .js-plotly-plot").first).to_be_visible()
    found = axe_findings(page)
    assert not found, found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding_on_the_page_of_the_api(
    pages: dict[str, Page], url: str, scheme: str
) -> None:
    page = pages[scheme]
    page.goto(f"{url}/api")
    expect(page.get_by_role("heading", name="Dataloupe API")).to_be_visible()
    assert not serious_findings(page)
    page.get_by_role("link", name="Its page: Explain").click()
    expect(page).to_have_url(re.compile(rf"{url}/explain\b"))


def audited_set(study: Study) -> str:
    """A set that an audit is of."""
    rows = range(2, 40, 3)
    if not read_audits(study):
        write_audit(study, rows)
    return keep_set(study, rows, "audited").key


@pytest.mark.parametrize(
    "button", ["Jobs", "Filters", "Select", "Saved slices (0)", "Export all 150"]
)
def test_no_finding_in_what_opens(pages: dict[str, Page], url: str, button: str) -> None:
    page = pages["light"]
    page.goto(f"{url}/test-set")
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_test_id("stPopoverBody")).to_be_visible()
    found = axe_findings(page)
    assert not found, found


def test_the_command_palette_by_keyboard(pages: dict[str, Page], study: Study, url: str) -> None:
    page = pages["dark"]
    page.goto(f"{url}/test-set?result=wrong")
    expect(page.locator("a.card").first).to_be_visible()
    page.keyboard.press("Control+k")
    field = page.get_by_role("combobox", name="Find a page")
    expect(field).to_be_focused()
    options = page.get_by_role("option")
    expect(options.first).to_have_text("OverviewPage")
    assert not axe_findings(page)
    field.fill("test-14")
    expect(options.first).to_contain_text("Explain test-14")
    page.keyboard.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Supporting")).to_be_visible()
    assert "test=test-14" in page.url
    assert "result=wrong" in page.url
    page.keyboard.press("Control+k")
    page.keyboard.press("Escape")
    expect(field).to_be_hidden()
    page.go_back()
    expect(page.get_by_role("button", name="Filters (1)")).to_be_visible()


def axe_findings(page: Page) -> list[dict[str, Any]]:
    """What axe-core finds wrong in the page as it stands."""
    if not AXE.is_file():
        pytest.skip(f"no axe-core at {AXE}: run `npm install --prefix tests/browser`")
    if page.locator('[data-testid="stApp"]').count():  # the page of the API has no script
        settled(page)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = page.evaluate(
        """() => axe.run({ resultTypes: ["violations"] })
            .then(found => found.violations.map(one =>
                ({ id: one.id, impact: one.impact, nodes: one.nodes.map(n => n.html) })))"""
    )
    return found
