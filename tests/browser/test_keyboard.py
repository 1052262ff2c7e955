"""The five journeys by keyboard alone: every control is reached by Tab, shows that it has the
focus, and keeps it when the page is drawn anew; Back and reload restore the view at each step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect
from playwright.sync_api import TimeoutError as NothingHappened

from engine.api import Study
from tests.browser.chromium import server, settled
from tests.browser.journeys import JOURNEYS, Journey
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of

pytestmark = pytest.mark.browser

MOST_TABS = 60
"""From the top of a page to any control of a journey."""
HAS_FOCUS = "node => node.getRootNode().activeElement === node"
LOOK = """node => {
  const above = [node.parentElement?.parentElement, node.parentElement, node]
  return [...above, ...node.querySelectorAll("*")].filter(Boolean).map(one => {
    const { outline, boxShadow, borderColor, backgroundColor } = getComputedStyle(one)
    return [outline, boxShadow, borderColor, backgroundColor].join()
  }).join()
}"""
FOCUSED = """() => {
  let found = document.activeElement
  while (found?.shadowRoot?.activeElement) found = found.shadowRoot.activeElement
  return `${found?.tagName} ${found?.getAttribute("aria-label") ?? found?.textContent.slice(0, 60)}`
}"""


class WithKeyboard(Journey):
    """A person without a mouse."""

    def act(self, target: Locator) -> None:
        self.reach(target)
        self.page.keyboard.press("Enter")
        kept_focus(self.page)

    def give(self, *files: Path) -> None:
        # Chromium hands dialogs over from a moment after the first listener on; a page that is
        # drawn anew under the key loses it. A person presses again.
        self.page.on("filechooser", lambda _: None)
        button = self.button("Upload").last
        for patience in (5_000, 10_000, 60_000):
            settled(self.page)
            self.reach(button)
            try:
                with self.page.expect_file_chooser(timeout=patience) as chooser:
                    self.page.keyboard.press("Enter")
            except NothingHappened:
                continue
            chooser.value.set_files([str(file) for file in files])
            return
        raise AssertionError("Enter does not open the dialog for files")

    def reach(self, target: Locator) -> None:
        reach(self.page, target)


def reach(page: Page, target: Locator) -> None:
    """Press Tab until the control has the focus, and shows it."""
    plain = target.evaluate(LOOK)
    passed = [page.evaluate(FOCUSED)]
    while not target.evaluate(HAS_FOCUS):
        assert len(passed) <= MOST_TABS, f"Tab does not reach {target}: {passed}"
        page.keyboard.press("Tab")
        passed.append(page.evaluate(FOCUSED))
    assert target.evaluate(LOOK) != plain, f"{target} does not show its focus"


def kept_focus(page: Page) -> None:
    """Wait until the page has followed, and something on it has the focus."""
    expect(settled(page).locator(":focus").first).to_be_attached()


@pytest.fixture(scope="module")
def real(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A small study of real models, which retrain in a moment."""
    return give_units(copy_of(small_study, tmp_path_factory.mktemp("journeys") / "study"))


@pytest.fixture(scope="module")
def real_url(real: Study) -> Iterator[str]:
    with server(real.root) as url:
        yield url


@pytest.mark.parametrize("name", JOURNEYS)
def test_a_journey(name: str, desktop: BrowserContext, real: Study, real_url: str) -> None:
    _, walk = JOURNEYS[name]
    journey = WithKeyboard(desktop, real_url)
    walk(journey, real)
    assert journey.checked


def test_a_control_keeps_the_focus_when_the_page_is_drawn_anew(
    desktop: BrowserContext, url: str
) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explain?test=test-5")
    again = page.locator(".st-key-next button")
    reach(page, again)
    for id_ in ("test-6", "test-7"):
        page.keyboard.press("Enter")
        page.wait_for_url(f"**test={id_}**")
        expect(settled(page).locator(".st-key-next button")).to_be_focused()
    page.keyboard.press("ArrowRight")  # the same, by its shortcut
    page.wait_for_url("**test=test-8**")
    expect(again).to_be_focused()

    page.goto(f"{url}/training-set?view=review")
    keep = page.get_by_role("button", name="Keep Shortcut K")
    reach(page, keep)
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 of 20 reviewed")).to_be_visible()
    expect(keep).to_be_focused()
    undo = page.get_by_role("button", name="Undo")
    reach(page, undo)
    page.keyboard.press("Enter")
    expect(page.get_by_text("0 of 20 reviewed")).to_be_visible()
    expect(undo).to_be_disabled()  # a neighbor has the focus in its place
    expect(page.locator(".st-key-review_buttons :focus")).to_be_visible()


def test_what_opened_a_menu_has_the_focus_once_it_is_closed(
    desktop: BrowserContext, url: str
) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/test-set")
    card = page.locator("a.card").first
    reach(page, card)
    page.keyboard.press("Space")
    page.wait_for_url("**selected=**")
    expect(card).to_be_focused()
    tag = page.locator(".st-key-tag_selected button")
    back(page, tag)
    page.keyboard.press("Enter")
    field = page.get_by_label("Tag 1 prediction")
    reach(page, field)
    page.keyboard.press("Escape")
    expect(tag).to_be_focused()
    clear = page.locator(".st-key-clear_selection button")
    back(page, clear)
    page.keyboard.press("Enter")
    expect(clear).to_have_count(0)
    expect(page.locator(".st-key-toolbar :focus")).to_be_visible()


def test_another_page_begins_at_its_title(desktop: BrowserContext, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explain?test=test-5")
    page.locator("a.card").first.wait_for()
    settled(page).keyboard.press("Control+k")
    page.keyboard.type("brittle")
    expect(page.get_by_role("option", selected=True)).to_contain_text("Brittle")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Brittle predictions")).to_be_focused()


def test_nothing_takes_the_focus_from_who_uses_a_mouse(desktop: BrowserContext, url: str) -> None:
    """The arrow keys go to the next example, not into a control."""
    page = desktop.new_page()
    page.goto(f"{url}/explain?test=test-5")
    page.locator(".st-key-next button").click()
    page.wait_for_url("**test=test-6**")
    settled(page).wait_for_timeout(600)
    expect(page.locator(":focus")).to_have_count(0)


def back(page: Page, target: Locator) -> None:
    """Press Shift and Tab until the control has the focus."""
    for _ in range(MOST_TABS):
        if target.evaluate(HAS_FOCUS):
            return
        page.keyboard.press("Shift+Tab")
    raise AssertionError(f"Shift and Tab do not reach {target}")
