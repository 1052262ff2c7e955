"""A person with a picture of one's own: what it gets, and what bad pictures get."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from engine.api import Study
from engine.applications.live import Query, run_query
from tests.applications.test_live import (
    animation,
    header_of_100_megapixels,
    photo,
    pixels_of,
    png,
    turned,
)
from tests.browser.chromium import PHONE, server, settled
from tests.builders.copies import copy_of

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def live_url(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(copy_of(small_study, tmp_path_factory.mktemp("live") / "study").root) as url:
        yield url


@pytest.fixture
def page(desktop: BrowserContext, live_url: str) -> Page:
    desktop.set_default_timeout(120_000)
    page = desktop.new_page()
    page.goto(f"{live_url}/live")
    expect(page.get_by_text("Which picture should be explained?")).to_be_visible()
    return page


def give(page: Page, content: bytes, name: str = "mine.png") -> None:
    page.locator("input[type=file]").set_input_files(
        files=[{"name": name, "mimeType": "image/png", "buffer": content}]
    )


def expect_rows(page: Page, sign: str, rows: NDArray[np.integer]) -> None:
    """Wait for the cards of exactly these rows, in their order."""
    cards = page.locator(f"section[data-sign={sign}] a.card")
    for place, row in enumerate(rows):
        expect(cards.nth(place)).to_have_attribute("data-row", str(row), timeout=120_000)
    expect(cards).to_have_count(len(rows))


def parameter(page: Page, name: str) -> str:
    """A parameter of the page's URL."""
    return parse_qs(urlparse(page.url).query)[name][0]


def test_what_is_explained_is_chosen_with_the_keyboard(
    desktop: BrowserContext, live_url: str, small_study: Study
) -> None:
    desktop.set_default_timeout(120_000)
    page = desktop.new_page()
    found = small_study.predictions("test")
    row = int(np.flatnonzero(~found["correct"])[1])
    label, predicted = small_study.table("test")["label"][row], found["predicted"][row]
    page.goto(f"{live_url}/explain?test=test-{row}")
    expect(page.get_by_role("heading", name=f"Why not “{label}”?")).to_be_visible()
    page.get_by_role("button", name="Explain…").focus()
    page.keyboard.press("Enter")
    for choice, question in (
        ("The true label", f"Why “{predicted}”?"),
        ("The predicted class", "Why not “"),
        ("A class", f"Why “{predicted}” rather than “{label}”?"),
    ):
        page.get_by_role("radio", name=re.compile(f"^{choice}")).focus()
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("heading", name=question)).to_be_visible()
    page.keyboard.press("Escape")
    explained = small_study.explain(row, 12, output=parameter(page, "output"))
    expect_rows(page, "support", np.array([one.row for one in explained.supporting]))
    page.get_by_role("button", name="Next").click()  # the question stays
    expect(page.get_by_role("heading", name="rather than")).to_be_visible()


def test_a_picture_of_one_s_own(page: Page, small_study: Study) -> None:
    content = png(pixels_of(small_study, 5))
    give(page, content)
    answer = run_query(Query(small_study.root, "mlp", {"picture": content}))
    expect_rows(page, "support", answer.support[:12])
    expect_rows(page, "oppose", answer.oppose[:12])
    predicted = str(answer.predicted)
    expect(page.locator(".dl-facts dd").first).to_contain_text(predicted)
    expect(page.locator("img.dl-own")).to_be_visible()

    page.get_by_role("radio", name="Both").click()
    expect_rows(page, "similar", answer.similar[:12])
    assert "show=both" in page.url
    expect(page.get_by_text("influential pictures shown are not among")).to_be_visible()

    page.get_by_role("button", name="Explain…").click()
    page.get_by_text("One class rather than another").click()
    expect(page.get_by_role("heading", name=re.compile("Why .* rather than"))).to_be_visible()
    explained = run_query(
        Query(small_study.root, "mlp", {"picture": content}, parameter(page, "output"))
    )
    page.keyboard.press("Escape")
    expect_rows(page, "support", explained.support[:12])

    page.locator("section[data-sign=support] a.card").first.click()
    expect(page.get_by_role("heading", name=f"train-{explained.support[0]}")).to_be_visible()
    page.go_back()
    expect_rows(page, "similar", answer.similar[:12])
    page.get_by_role("button", name="Remove picture").click()
    expect(page.get_by_text("Which picture should be explained?")).to_be_visible()


BAD = {
    "no picture": (b"I am no picture.", "The picture is damaged or no picture of a known format"),
    "html": (b"<html><script>alert(1)</script></html>", "no picture of a known format"),
    "empty": (b"", "The file is empty"),
    "truncated": (png(photo(300, 300))[:20_000], "The picture is damaged"),
    "100 megapixels": (header_of_100_megapixels(), "more than the 25,000,000 pixels"),
}


def test_each_bad_picture_gets_one_clear_line(page: Page) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    for name, (content, line) in BAD.items():
        give(page, content)
        panel = page.locator(".dl-notice[data-kind=error]")
        expect(panel, name).to_contain_text(line)
        expect(panel, name).to_contain_text("This picture cannot be explained")
        page.get_by_role("button", name="Remove").first.click()
        expect(page.get_by_text("Which picture should be explained?")).to_be_visible()
    assert page.locator("[data-testid=stException]").count() == 0


STRANGE = {
    "1×1": (png(photo(1, 1)), "was enlarged"),
    "animated": (animation(), "only its first frame"),
    "CMYK": (png(photo(28, 28), "CMYK", "JPEG"), "CMYK colors"),
    "16 bits": (png(80 * np.arange(784, dtype=np.uint16).reshape(28, 28)), "upper 8 of its 16"),
    "turned": (turned(), "rotated as its EXIF"),
}


def test_each_strange_picture_is_answered_and_says_what_was_done(page: Page) -> None:
    for name, (content, note) in STRANGE.items():
        give(page, content)
        expect(page.locator(".dl-subject .dl-list"), name).to_contain_text(note)
        expect(page.locator("section[data-sign=support] a.card")).to_have_count(12)
        page.get_by_role("button", name="Remove").first.click()
        expect(page.get_by_text("Which picture should be explained?")).to_be_visible()


def test_30_megabytes_and_other_kinds_of_file_are_refused_at_once(
    page: Page, tmp_path: Path
) -> None:
    large = tmp_path / "mine.png"
    large.write_bytes(b"\x89PNG" + bytes(30 * 2**20))
    uploads: list[str] = []
    page.on("request", lambda one: uploads.append(one.url) if one.method == "PUT" else None)
    page.locator("input[type=file]").set_input_files(large)
    expect(page.get_by_text("20.0MB or smaller")).to_be_visible()
    give(page, b"PK", "mine.pt")
    expect(page.get_by_text("files are not allowed")).to_be_visible()
    assert uploads == []


def test_the_server_refuses_30_megabytes_whoever_sends_them(page: Page, live_url: str) -> None:
    requested: list[str] = []
    page.on("request", lambda sent: requested.append(sent.url) if sent.method == "PUT" else None)
    give(page, png(np.zeros((28, 28), np.uint8)))
    expect(page.locator("section[data-sign=support] a.card").first).to_be_visible()
    answer = page.request.put(
        requested[0],
        multipart={"file": {"name": "a.png", "mimeType": "image/png", "buffer": bytes(30 * 2**20)}},
        headers={
            "X-Xsrftoken": next(
                (c["value"] for c in page.context.cookies() if "xsrf" in c["name"]), ""
            )
        },
    )
    assert answer.status in (413, 403)


def test_phone_width_has_no_sideways_scroll(browser: Browser, live_url: str) -> None:
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(f"{live_url}/live")
    expect(page.get_by_text("Which picture should be explained?")).to_be_visible()
    file = io.BytesIO()
    Image.fromarray(photo(300, 200)).save(file, "PNG")
    give(page, file.getvalue())
    expect(page.locator("section[data-sign=support] a.card").first).to_be_visible()
    settled(page)
    wide = page.evaluate(
        "[...document.querySelectorAll('[data-testid=stMain] *')]"
        ".filter(node => node.checkVisibility())"  # what the closed menu holds has no place
        ".filter(node => node.getBoundingClientRect().right > innerWidth + 1)"
        ".map(node => node.outerHTML.slice(0, 100))"
    )
    assert wide == []
    context.close()


def test_a_file_is_taken_only_while_a_page_waits_for_it(page: Page, small_study: Study) -> None:
    urls: list[str] = []
    page.on("request", lambda one: urls.append(one.url) if one.method == "PUT" else None)
    give(page, png(pixels_of(small_study, 5)))
    expect(page.locator("section[data-sign=support] a.card")).to_have_count(12)

    def send(url: str) -> int:
        """Send a file as the page does, with its cookies and token."""
        status: int = page.evaluate(
            """async url => {
                const token = document.cookie.match(/_streamlit_xsrf=([^;]*)/)[1]
                const body = new FormData()
                body.append("file", new Blob(["x"]), "x.png")
                const headers = {"X-Xsrftoken": token}
                return (await fetch(url, {method: "PUT", body, headers})).status
            }""",
            url,
        )
        return status

    (url,) = urls
    assert send(url) == 409
    assert send(f"{url.rpartition('/')[0]}/00000000-0000-0000-0000-000000000000") == 403
    page.get_by_role("link", name="Data", exact=True).click()
    expect(page.locator("a.card").first).to_be_visible()
    assert send(url) == 403
