"""What can be measured of a page's look: where its content starts, and what does not fit."""

from __future__ import annotations

from playwright.sync_api import Page

FIRST = (
    ".gallery .card, .dl-subject, .dl-figures, .dl-stages, .dl-pairs, .dl-intervals, .dl-job, "
    ".js-plotly-plot, [data-testid=stDataFrame], .dl-grade, .st-key-hypothesis"
)
"""The content of a page: cards, the example it is about, figures, verdicts, tables, charts, jobs.

A hypothesis begins with the choice of a transformation beside what it does to some examples: there
are no results before it is tested. Two pages start lower by design: the report of an upload, below
the warning that it is a copy and the button that compares it; and a page whose link is not valid,
which says so first."""
PHONE_WIDTH = 640
HIGHEST, HIGHEST_ON_PHONE = 220, 300
"""Where the first content must have started, in pixels."""


def first_content(page: Page) -> float | None:
    """Where the content starts, in pixels from the top; None without any."""
    tops: list[float] = page.locator(FIRST).evaluate_all(
        """found => found.filter(one => one.checkVisibility() && one.getBoundingClientRect().height)
            .map(one => one.getBoundingClientRect().top)"""
    )
    return min(tops, default=None)


def wider_than_window(page: Page) -> int:
    """Pixels that a page scrolls sideways."""
    wide: int = page.evaluate(
        """() => Math.max(...[document.scrollingElement,
            document.querySelector('[data-testid=stMain]')].filter(Boolean)
            .map(one => one.scrollWidth - one.clientWidth))"""
    )
    return wide


def outside(page: Page) -> list[str]:
    """Texts that reach past the window's right edge and cannot be scrolled to."""
    found: list[str] = page.evaluate(
        """() => {
            const scrolls = (node) => {
                for (let one = node.parentElement; one; one = one.parentElement) {
                    const of = getComputedStyle(one)
                    if (['auto', 'scroll'].includes(of.overflowX)
                        && one.scrollWidth > one.clientWidth) return true
                    if (of.overflowX === 'hidden'
                        && one.getBoundingClientRect().right <= innerWidth) return true
                }
                return false
            }
            return [...document.querySelectorAll('.stApp *')]
                .filter(one => one.checkVisibility({ visibilityProperty: true })
                    && [...one.childNodes].some(c => c.nodeType === 3 && c.data.trim())
                    && one.getBoundingClientRect().right > innerWidth + 1 && !scrolls(one))
                .map(one => one.textContent.trim().slice(0, 60))
        }"""
    )
    return found


def measured(page: Page) -> list[str]:
    """What is wrong with the look of a page, one sentence each."""
    assert page.viewport_size is not None
    phone = page.viewport_size["width"] <= PHONE_WIDTH
    highest = HIGHEST_ON_PHONE if phone else HIGHEST
    found = []
    top = first_content(page)
    if top is not None and top > highest:
        found.append(f"content starts at {top:.0f} px, not above {highest}")
    if (wide := wider_than_window(page)) > 0:
        found.append(f"scrolls sideways by {wide} px")
    return found + [f"“{text}” is past the right edge" for text in outside(page)]
