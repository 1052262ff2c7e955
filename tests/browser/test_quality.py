"""A person who wants to know how far a score can be trusted."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from engine.api import Study
from engine.store.quantities import LDS
from engine.study.measured_quality import read_lds_of_each
from tests.browser.chromium import settled

pytestmark = pytest.mark.browser

POINT = """
node => {
  const points = node._fullData.find((trace) => trace.text), layout = node._fullLayout
  const box = node.getBoundingClientRect()
  const farthest = points.x.indexOf(Math.max(...points.x))
  return {
    test: points.text[farthest],
    x: box.left + layout._size.l + layout.xaxis.l2p(points.x[farthest]),
    y: box.top + layout._size.t + layout.yaxis.l2p(points.y[farthest]),
  }
}
"""
"""The point farthest to the right, alone in its place: whose it is, and where on the screen."""


def plot(page: Page) -> None:
    expect(page.locator(".js-plotly-plot .plot-container")).to_be_visible()
    page.locator(".js-plotly-plot").scroll_into_view_if_needed()
    settled(page)


def test_from_the_badge_to_the_figures_and_back(
    desktop: BrowserContext, study: Study, url: str
) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/explain?test=test-5")
    page.get_by_role("button", name=re.compile(r"LDS .* to ")).click()
    page.get_by_role("link", name="How far can these scores be trusted?").click()
    expect(page.get_by_role("heading", name="What these scores are good for")).to_be_visible()
    assert "test=test-5" in page.url
    assert "method=hybrid" in page.url
    quality = study.quality()
    assert quality is not None
    titles = ["Noise ceiling", *(one.title for one in quality.methods.values())]
    shown = page.get_by_role("list", name="LDS of every method").locator(".dl-name")
    expect(shown).to_have_text([re.compile(re.escape(title)) for title in titles])
    each = read_lds_of_each(study)
    expect(page.get_by_text("Each point is one of 40 held-out masks")).to_contain_text(
        LDS.text(each[5])
    )
    page.go_back()
    expect(page.get_by_role("heading", name="Supporting")).to_be_visible()


def test_methods_are_switched_and_a_point_leads_to_its_example(
    desktop: BrowserContext, study: Study, url: str
) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/quality")
    page.locator(".st-key-method [role=combobox], .st-key-method input").first.click()
    page.get_by_role("option", name="TRAK", exact=True).click()
    expect(page.locator(".dl-title span")).to_have_text("how far scores by TRAK can be trusted")
    page.reload()
    expect(page.locator(".dl-title span")).to_have_text("how far scores by TRAK can be trusted")
    assert "method=trak" in page.url

    plot(page)
    point = page.locator(".js-plotly-plot").evaluate(POINT)
    page.mouse.move(point["x"], point["y"])
    expect(page.locator(".hoverlayer")).to_contain_text(f"{point['test']}, test run")
    page.mouse.click(point["x"], point["y"])
    expect(page.get_by_role("heading", name="Supporting")).to_be_visible()
    expect(page.locator(".dl-title span")).to_contain_text(f"for {point['test']}")
    assert "method=trak" in page.url
    page.go_back()
    plot(page)
    expect(page.locator(".js-plotly-plot")).to_be_visible()  # Not sent on by the old click.
    assert "/quality" in page.url


def test_one_example_is_chosen_by_name(desktop: BrowserContext, study: Study, url: str) -> None:
    page = desktop.new_page()
    page.goto(f"{url}/quality")
    plot(page)
    page.get_by_role("button", name="Worst").click()
    worst = f"test-{int(np.argmin(read_lds_of_each(study)))}"
    expect(page.get_by_role("button", name=f"Explain {worst}")).to_be_visible()
    assert f"test={worst}" in page.url
    page.get_by_label("Test example, by id, or row as #17").fill("9")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Explain test-9")).to_be_visible()
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.get_by_text("Each point is one of 150 test examples")).to_be_visible()
    page.wait_for_url(re.compile(r"quality\?(?!.*test=)"))
