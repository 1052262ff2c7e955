"""A person with a browser: filter, pick, see what speaks for and against, share the link."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from engine.api import Study
from engine.study.rankings import find_influences, read_top_of_training
from tests.browser.chromium import PHONE, server, settled
from tests.builders.synthetic_study import CLASSES, write_predictions, write_scores, write_study

pytestmark = pytest.mark.browser


def count(page: Page) -> str:
    return page.locator(".dl-title span").inner_text()


def test_from_the_gallery_to_an_explanation_and_back_by_url(
    desktop: BrowserContext, study: Study, url: str
) -> None:
    page = desktop.new_page()
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url))
    page.goto(f"{url}/explore")
    expect(page.locator("a.card")).to_have_count(120)
    table = study.table("test").join(study.predictions("test"))

    page.get_by_role("button", name="Filters").click()
    page.get_by_label("True class").click()
    page.get_by_role("option", name=re.compile(CLASSES[3])).click()
    wanted = table[table["label"] == CLASSES[3]]
    expect(page.locator("a.card")).to_have_count(len(wanted))
    assert count(page) == f"{len(wanted)} / 150"
    page.get_by_text(re.compile(r"^Wrong \(")).click()
    wanted = wanted[~wanted["correct"]]
    expect(page.locator("a.card")).to_have_count(len(wanted))

    page.locator("a.card").first.click()
    expect(page.get_by_role("heading", name="Supporting")).to_be_visible()
    expect(page.get_by_role("heading", name="Opposing")).to_be_visible()
    row = int(wanted.index[0])
    support, _, oppose, _ = find_influences(study, row, 12)
    for sign, rows in (("support", support), ("oppose", oppose)):
        shown = page.locator(f"section[data-sign={sign}] .card")
        expect(shown).to_have_count(12)
        found = [int(card.get_attribute("data-row") or -1) for card in shown.all()]
        assert found == list(rows)
    expect(page.locator(".dl-where").first).to_contain_text(f"1 of {len(wanted)}")

    link = page.url
    before = page.locator(".groups").inner_text()
    page.reload()
    expect(page.get_by_role("heading", name="Opposing")).to_be_visible()
    assert page.url == link
    assert page.locator(".groups").inner_text() == before
    expect(page.locator(".dl-where").first).to_contain_text(f"1 of {len(wanted)}")
    assert not [one for one in foreign if not re.match(rf"{url}|blob:|data:", one)]


def shown_on(page: Page) -> str:
    return "\n".join(page.locator(".groups").all_inner_texts())


def test_from_an_explanation_to_a_training_picture_and_back(
    desktop: BrowserContext, study: Study, url: str
) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explain?test=test-5&k=6")
    expect(page.locator("section[data-sign=support] a.card")).to_have_count(6)
    explained = shown_on(page)
    train = int(find_influences(study, 5, 6)[2][0])
    page.locator("section[data-sign=oppose] a.card").first.click()
    expect(page.get_by_role("heading", name=f"Training picture train-{train}")).to_be_visible()
    expect(page.get_by_role("heading", name="Helps most")).to_be_visible()
    assert f"train=train-{train}" in page.url
    top = read_top_of_training(study, train)
    for sign in ("support", "oppose"):
        shown = page.locator(f"section[data-sign={sign}] a.card")
        expect(shown).to_have_count(6)
        found = [int(card.get_attribute("data-row") or -1) for card in shown.all()]
        assert found == list(top[f"{sign}_index"][:6])

    link, before = page.url, shown_on(page)
    page.reload()
    expect(page.get_by_role("heading", name="Helps most")).to_be_visible()
    assert (page.url, shown_on(page)) == (link, before)
    page.go_back()
    expect(page.get_by_role("heading", name="Supporting")).to_be_visible()
    assert page.url.startswith(f"{url}/explain?")
    assert shown_on(page) == explained
    page.go_forward()
    page.get_by_role("button", name="Back to test-5").click()
    expect(page.locator(".dl-title span")).to_contain_text("test-5")
    page.go_back()
    expect(page.get_by_role("heading", name="Helps most")).to_be_visible()
    page.locator("section[data-sign=support] a.card").first.click()
    expect(page.get_by_role("heading", name="Supporting")).to_be_visible()
    assert f"test=test-{top['support_index'][0]}" in page.url


def test_similar_beside_influential_by_the_switch(
    desktop: BrowserContext, study: Study, url: str
) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explain?test=test-5&k=6")
    expect(page.locator("section[data-sign=support] a.card")).to_have_count(6)
    page.get_by_role("radio", name="Both").click()
    similar = page.locator("section[data-sign=similar] a.card")
    expect(similar).to_have_count(6)
    assert "show=both" in page.url
    rows = [int(card.get_attribute("data-row") or -1) for card in similar.all()]
    assert rows == list(study.neighbours("test", 5, 6)[0])
    tops = [box["y"] for box in (s.bounding_box() for s in page.locator("section").all()) if box]
    assert len(set(tops)) == 1  # side by side
    expect(page.get_by_text("not similar").first).to_be_visible()
    page.reload()
    expect(similar).to_have_count(6)
    page.get_by_role("radio", name="Similar").click()
    expect(page.locator("section[data-sign=support]")).to_have_count(0)
    similar.first.click()
    expect(page.get_by_role("heading", name=f"Training picture train-{rows[0]}")).to_be_visible()
    expect(page.get_by_role("heading", name="Similar")).to_be_visible()
    page.go_back()
    expect(similar).to_have_count(6)
    assert "show=similar" in page.url


def test_a_cell_of_the_confusion_matrix_opens_its_slice(
    desktop: BrowserContext, study: Study, url: str
) -> None:
    page = desktop.new_page()
    page.goto(url)
    cell = page.locator("a.wrong").first
    expect(cell).to_be_visible()
    number = int((cell.get_attribute("title") or "").split()[0])
    cell.click()
    expect(page.locator("a.card")).to_have_count(number)
    assert "label=" in page.url
    assert "predicted=" in page.url
    expect(page.locator("a.card .note.wrong")).to_have_count(number)


def test_the_guide_goes_away_for_good(desktop: BrowserContext, url: str) -> None:
    page = desktop.new_page()
    page.goto(url)
    page.get_by_role("button", name="Dismiss the first steps").click()
    expect(page.get_by_text("Ask its training data")).to_be_hidden()
    page.reload()
    expect(page.locator("a.card").first).to_be_visible()
    expect(page.get_by_text("Ask its training data")).to_be_hidden()


def test_an_explanation_is_downloaded(desktop: BrowserContext, study: Study, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explain?test=test-5&k=4")
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    taken = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert [one["row"] for one in taken["supporting"]] == list(find_influences(study, 5, 4)[0])


def test_thumbnails_come_from_sprite_sheets_and_stay_sharp(
    desktop: BrowserContext, study: Study, url: str
) -> None:
    page = desktop.new_page()
    sheets: list[str] = []
    page.on("response", lambda got: sheets.append(got.url) if "/sprites/" in got.url else None)
    page.goto(f"{url}/explore")
    expect(page.locator("a.card")).to_have_count(120)
    settled(page)
    assert len(set(sheets)) == 2  # of 64 each
    thumb = page.locator(".thumb").first
    style = thumb.evaluate("node => getComputedStyle(node).imageRendering")
    assert style == "pixelated"
    box = thumb.bounding_box()
    assert box is not None
    assert box["width"] % study.dataset.cell == 0

    sheets.clear()
    page.goto(f"{url}/explain?test=test-5")
    expect(page.locator("section[data-sign=oppose] a.card")).to_have_count(12)
    settled(page)
    support, _, oppose, _ = find_influences(study, 5, 12)
    gathered = ["-".join(map(str, rows)) for rows in (support, oppose)]
    assert sorted(s.rpartition("/of/")[2] for s in sheets if "/of/" in s) == sorted(
        f"{rows}.webp" for rows in gathered
    )
    shown = (
        page.locator("section[data-sign=oppose] .thumb")
        .nth(9)
        .evaluate("node => [getComputedStyle(node).backgroundPosition, node.clientWidth]")
    )
    assert shown[0] == f"{-shown[1]}px {-shown[1]}px"  # second row, second column of its sheet


def test_keyboard_only(desktop: BrowserContext, study: Study, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explore")
    expect(page.locator("a.card")).to_have_count(120)
    settled(page)
    focused = "document.activeElement.shadowRoot?.activeElement?.dataset.row"
    for _ in range(40):  # past the links of all pages and the filters
        page.keyboard.press("Tab")
        if page.evaluate(focused) is not None:
            break
    assert page.evaluate(focused) == "0"
    for key, row in (("ArrowRight", "1"), ("End", "119"), ("Home", "0"), ("ArrowLeft", "0")):
        page.keyboard.press(key)
        assert page.evaluate(focused) == row
    page.keyboard.press("ArrowDown")
    columns = int(page.evaluate(focused))
    assert columns > 4
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Supporting")).to_be_visible()
    assert "test=test-1" in page.url
    settled(page)
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile("test=test-2$"))
    settled(page)
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile("test=test-1$"))
    settled(page)
    page.go_back()
    page.wait_for_url(re.compile("test=test-2$"))
    expect(page.locator(".dl-title span")).to_contain_text("test-2")


def test_the_link_is_copied(desktop: BrowserContext, url: str) -> None:
    desktop.grant_permissions(["clipboard-read", "clipboard-write"])
    page = desktop.new_page()
    page.goto(f"{url}/explain?test=test-5&k=6")
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Link copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"{url}/explain?")
    assert "study=" in link
    assert "k=6" in link
    assert "test=test-5" in link


@pytest.fixture(scope="module")
def phone(browser: Browser) -> Iterator[Page]:
    """A phone's tab. Each address is loaded anew, but the scripts only once."""
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "explore",
        "explore?selected=3-6&size=small",
        "explain?test=test-5",
        "explain?test=test-5&show=both",
        "explain",
        "explain?test=nobody",
        "training?train=train-5&test=test-5",
        "training",
        "quality",
        "quality?test=test-5",
    ],
)
def test_phone_width_has_no_sideways_scroll(phone: Page, url: str, path: str) -> None:
    page = phone
    page.goto(f"{url}/{path}")
    expect(page.locator(".card, .dl-intervals").first).to_be_visible()
    settled(page)
    wide = page.evaluate(
        """() => {
            const beyond = node => node.getBoundingClientRect().right > innerWidth + 1
            // What scrolls within itself may be wider than the page.
            const scrolls = node => node && (
                /auto|scroll/.test(getComputedStyle(node).overflowX) && !beyond(node)
                || scrolls(node.parentElement))
            return [...document.querySelectorAll('[data-testid=stMain] *')]
                .filter(node => beyond(node) && !scrolls(node.parentElement))
                .map(node => `${node.tagName}.${node.className}`)
        }"""
    )
    assert wide == []


def test_a_page_fills_itself_while_the_study_is_built(
    desktop: BrowserContext, tmp_path: Path
) -> None:
    study = write_study(tmp_path / "study", stage="data")
    with server(study.root) as url:
        page = desktop.new_page()
        page.goto(f"{url}/explain?test=test-0")
        expect(page.get_by_text("as soon as they are scored")).to_be_visible()
        write_predictions(study, "cnn", 0.2, np.random.default_rng(0))
        write_scores(study, "cnn", 20, np.random.default_rng(0))
        expect(page.get_by_role("heading", name="Supporting")).to_be_visible()
        page.close()


def test_a_field_opens_again_right_after_a_choice(desktop: BrowserContext, url: str) -> None:
    """The focus is taken back from a field after a choice, but not from one clicked since."""
    page = desktop.new_page()
    page.goto(f"{url}/test-set")
    expect(page.locator("a.card").first).to_be_visible()
    field = page.get_by_role("combobox", name="Order")
    for title in ("Least confident", "In the order of the data", "Least confident"):
        settled(page)
        field.click()
        page.get_by_role("option", name=title).click()
        expect(field).to_have_value(title)
