"""Screenshots of the pages of a study.

python -m tests.browser.screenshots STUDY [FOLDER [STATE …]]        those that docs/ shows
python -m tests.browser.screenshots STUDY FOLDER --all [STATE …]    every state, in whole pages
python -m tests.browser.screenshots STUDY FOLDER --all --building   as while a build runs

With --all, each state is shown at three widths, light and dark, and what is wrong by measure is
printed: content that starts too low, a page that scrolls sideways, text that is cut.

Compare is best of a study with a comparison, such as `dataloupe case-study augmentation` makes.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.sync_api import Browser, Page, ViewportSize

from engine.api import Study
from engine.study.lock import locked
from tests.browser.chromium import DESKTOP, PHONE, chromium, server, settled
from tests.browser.measures import measured
from tests.browser.page_states import State, states

WIDE: ViewportSize = {"width": 1920, "height": 1080}
LONGEST = 3600
"""Of a picture of a whole page, in pixels."""
READY = (
    ".gallery .thumb, .gallery .excerpt, .dl-notice, .dl-stages, .dl-intervals, .dl-job, "
    ".dl-building, .js-plotly-plot .plot-container, .stAlert, [data-testid=stDataFrame], "
    "body > :is(h1, main)"
)


SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


class Screen(NamedTuple):
    """A size of the window.

    Attributes:
        names: Of its pictures, by color scheme; docs/ shows those of `documented`.
    """

    size: ViewportSize
    names: dict[str, str]
    documented: tuple[str, ...] = ()


SCREENS = (
    Screen(DESKTOP, {"light": "light", "dark": "dark"}, ("light", "dark")),
    Screen(PHONE, {"light": "phone", "dark": "phone-dark"}, ("phone",)),
    Screen(WIDE, {"light": "wide", "dark": "wide-dark"}),
)


def screenshots(
    browser: Browser, url: str, state: State, screen: Screen, target: Path, every: bool
) -> list[str]:
    """Take the pictures of a state on a screen: of the whole page if all are wanted.

    Returns:
        What is wrong by measure.
    """
    schemes = [one for one in SCHEMES if every or screen.names[one] in screen.documented]
    if not schemes:
        return []
    context = browser.new_context(viewport=screen.size)
    page = context.new_page()
    page.add_init_script(
        "sessionStorage.seen ||= localStorage['dataloupe.first-steps'] = 'dismissed'"
    )
    page.goto(f"{url}/{state.address}")
    page.locator(READY).filter(visible=True).first.wait_for()
    stand(page)
    state.act(page)
    stand(page)
    found = measured(page)
    if every:
        show_whole(page)
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        stand(page)
        page.screenshot(path=target.with_name(f"{target.name}-{screen.names[scheme]}.png"))
    context.close()
    return [f"{target.name}-{screen.names['light']}: {problem}" for problem in found]


def show_whole(page: Page) -> None:
    """Make the window as high as the page."""
    height = page.evaluate(
        "(document.querySelector('[data-testid=stMain]') ?? document.body).scrollHeight"
    )
    size = page.viewport_size
    assert size is not None
    page.set_viewport_size(
        {"width": size["width"], "height": min(LONGEST, max(height, size["height"]))}
    )


def stand(page: Page) -> None:
    """Wait for a page of the dashboard; the page of the API has no script."""
    if page.locator(".stApp").count():
        settled(page)


def main(root: Path, folder: Path, every: bool, only: list[str], building: bool = False) -> None:
    """Take the pictures of all states, or of those named.

    Args:
        building: Hold the study's lock, as a build does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    build = locked(Study.open(root)) if building else contextlib.nullcontext()
    with build, server(root) as url, chromium() as browser:
        for name, state in states(Study.open(root)).items():
            if name not in only if only else not (every or state.documented):
                continue
            for screen in SCREENS:
                for problem in screenshots(browser, url, state, screen, folder / name, every):
                    print(problem, flush=True)


if __name__ == "__main__":
    given = [one for one in sys.argv[1:] if one not in ("--all", "--building")]
    main(
        Path(given[0]),
        Path(given[1] if len(given) > 1 else "docs/screenshots"),
        "--all" in sys.argv,
        given[2:],
        "--building" in sys.argv,
    )
