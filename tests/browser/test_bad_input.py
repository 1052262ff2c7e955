"""Names that want to be code, links to nowhere, studies that vanish, many and few classes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from engine.study.slices import save_slice
from tests.browser.chromium import PHONE, server, settled
from tests.builders.synthetic_study import write_study

pytestmark = pytest.mark.browser

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "🦊 **bold** :red[x] `code` $x$",
    "a" * 500,
)


def watched(context: BrowserContext) -> Page:
    """A page in which a script of a name would be seen to run."""
    page = context.new_page()
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    page.on("pageerror", lambda error: pytest.fail(f"a script failed: {error}"))
    return page


def test_hostile_names_run_nothing(desktop: BrowserContext, tmp_path: Path) -> None:
    files = tuple(f"/{name}" for name in HOSTILE)
    study = write_study(
        tmp_path / "study", n_test=40, classes=HOSTILE, name=HOSTILE[0], wrong=0.5, files=files
    )
    for name in HOSTILE[:3]:
        save_slice(study, name, {"label": name})
    with server(study.root) as url:
        page = watched(desktop)
        for path in (
            "",
            "explore",
            "explore?selected=0-7",
            "explain?test=0",
            "explain?test=<img src=x onerror=alert(3)>",
            "training?train=0&test=0",
        ):
            page.goto(f"{url}/{path}")
            expect(page.locator(".card").first).to_be_visible()
            settled(page)
            assert page.locator('img[src="x"]').count() == 0

        page.goto(f"{url}/explore")
        page.locator("a.card").first.hover()
        expect(page.locator(".peek")).to_contain_text("test-0/<img src=x")
        page.get_by_role("button", name="Saved slices (3)").click()
        page.get_by_role("button", name=re.compile(r"^🦊 \*\*bold\*\* :red\[x\]")).click()
        expect(page.locator(".dl-title span")).to_contain_text(re.compile("^[0-9]+ / 40$"))
        settled(page)
        page.goto(f"{url}/explore?selected=0-7")
        page.get_by_role("button", name="Select", exact=True).click()
        expect(page.get_by_text("test-0/<img src=x onerror=alert(1)>").first).to_be_visible()
        assert page.locator('img[src="x"]').count() == 0
        page.close()


def test_hostile_names_fit_a_phone(browser: Browser, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", classes=HOSTILE, files=(f"/{'w' * 500}",), wrong=0.5)
    with server(study.root) as url:
        context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
        page = watched(context)
        for path in ("", "explore?selected=3", "explain?test=3", "training?train=3&test=3"):
            page.goto(f"{url}/{path}")
            expect(page.locator(".card").first).to_be_visible()
            settled(page)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        context.close()


def test_a_study_that_goes_away_and_comes_back_while_it_is_open(
    desktop: BrowserContext, tmp_path: Path
) -> None:
    study = write_study(tmp_path / "study", n_test=250)
    with server(study.root) as url:
        page = watched(desktop)
        page.goto(f"{url}/explore")
        expect(page.locator("a.card")).to_have_count(120)
        settled(page)
        study.root.rename(tmp_path / "elsewhere")
        page.get_by_role("button", name="Next page").click()  # Only a part is painted anew.
        expect(page.get_by_text("cannot be shown as it is").first).to_be_visible()
        expect(page.get_by_text("is not a folder").first).to_be_visible()

        write_study(tmp_path / "study", n_test=30, seed=9)  # Another study in its place.
        page.reload()
        expect(page.locator("a.card")).to_have_count(30)
        expect(page.get_by_text("made for other data")).to_be_visible()
        page.get_by_role("button", name="Use it here anyway").click()
        expect(page.get_by_text("made for other data")).to_be_hidden()
        page.close()


def test_next_after_a_rebuild_with_other_data(desktop: BrowserContext, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", n_test=250)
    with server(study.root) as url:
        page = watched(desktop)
        page.goto(f"{url}/explain?test=test-200")
        expect(page.get_by_role("heading", name="Supporting")).to_be_visible()
        settled(page)
        study.root.rename(tmp_path / "old")
        write_study(tmp_path / "study", n_test=30, seed=9)
        page.keyboard.press("ArrowRight")
        expect(page.get_by_text("There is no test picture “test-201”")).to_be_visible()
        expect(page.get_by_text("made for other data")).to_be_visible()
        page.close()


def test_a_thousand_classes_can_be_used(desktop: BrowserContext, tmp_path: Path) -> None:
    classes = [f"class {number}" for number in range(1000)]
    study = write_study(tmp_path / "study", n_test=300, classes=classes, wrong=0.5)
    table = study.table("test").join(study.predictions("test"))
    label = str(table[~table["correct"]]["label"].iloc[0])
    with server(study.root) as url:
        page = watched(desktop)
        page.goto(url)
        expect(page.get_by_text("Most frequent confusions (24 /")).to_be_visible()
        settled(page)  # findings are drawn last, and move what is below them
        page.get_by_label("Confusions of one class").click()
        page.keyboard.type(label)
        page.get_by_role("option", name=label, exact=True).click()
        expect(page.locator("li a").first).to_contain_text(label)
        page.locator("li a").first.click()
        expect(page).to_have_url(re.compile("label="))
        expect(page.locator("a.card").first).to_be_visible()

        page.goto(f"{url}/explore")
        expect(page.locator("a.card")).to_have_count(120)
        page.get_by_role("button", name="Filters").click()
        page.get_by_label("True class").click()
        page.keyboard.type(label)
        page.get_by_role("option", name=re.compile(rf"^{label} \(")).click()
        wanted = int((table["label"] == label).sum())
        expect(page.locator("a.card")).to_have_count(wanted)
        page.close()


def test_one_test_picture_of_two_classes(desktop: BrowserContext, tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", n_test=1, classes=("yes", "no"), wrong=1)
    with server(study.root) as url:
        page = watched(desktop)
        for path in ("", "explore", "explain?test=0", "training?train=0"):
            page.goto(f"{url}/{path}")
            expect(page.locator("a.card").first).to_be_visible()
        page.goto(f"{url}/explain?test=0")
        expect(page.locator(".dl-where").first).to_contain_text("1 of 1")
        expect(page.get_by_role("button", name="Next")).to_be_disabled()
        page.close()
