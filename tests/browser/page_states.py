"""Every page and state of a study that a designer looks at.

A state is an address and, where an address alone does not lead there, what is done on the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
from playwright.sync_api import Page

from dashboard.read.comparisons import EXAMPLE, FOUND, HYPOTHESIS, LEARNED
from engine.api import Study
from engine.applications.brittle.supports import find
from engine.applications.modeldiff.comparison import read_comparison
from engine.applications.unlearning.audit_record import read_audits
from engine.applications.unlearning.method_verdict import best, method_verdict
from engine.store import layout
from engine.study.capabilities import has
from engine.study.live_and_maps import has_live, read_live
from engine.study.methods import has_scores
from engine.study.models import has_predictions
from engine.study.names import resolve_algorithm, resolve_method, resolve_row
from engine.study.rankings import read_top
from engine.study.removal_sets import keep_set, kept_sets
from engine.study.thumbnails import read_thumbnail
from tests.browser.chromium import settled

Act = Callable[[Page], None]
CHOSEN = "3-6,9"
"""Rows that are selected."""


def no_act(page: Page) -> None:
    """The address leads there."""


@dataclass(frozen=True)
class State:
    """A page in a state.

    Attributes:
        address: Path and parameters, below the server's address.
        act: What is done once the page stands.
        documented: docs/ shows a picture of it.
    """

    address: str
    act: Act = no_act
    documented: bool = False


def states(study: Study) -> dict[str, State]:
    """Name of a state → the state, of those that the study is built for."""
    found = {
        "overview": State("", documented=True),
        "first-visit": State("", act=show_guide),
        "palette": State("", act=type_into_palette),
        "menu": State("provenance", act=open_menu),
        "jobs-drawer": State("provenance", act=open_drawer),
        **{name: State(name, documented=True) for name in ("quality", "jobs", "provenance")},
        "no-page": State("no-such-page"),
        "api": State("api"),
    }
    if study.has_data:
        found |= of_data(study)
    algorithm = resolve_algorithm(study)
    if study.has_data and has_predictions(study, algorithm) and has_scores(study, algorithm):
        return found | of_scores(study, algorithm)
    pages = ("explain", "training", "brittle", "map", "live", "what-if", "unlearn", "compare")
    return found | {name: State(name) for name in pages}


def of_data(study: Study) -> dict[str, State]:
    """The two sets of examples, and links that lead nowhere."""
    return {
        "test-set": State("test-set", documented=True),
        "test-set-filtered": State("test-set?result=wrong&size=small"),
        "test-set-filters": State("test-set?result=wrong", act=press("Filters")),
        "test-set-selected": State(f"test-set?selected={CHOSEN}"),
        "test-set-none": State("test-set?id=nobody"),
        "training-set": State("training-set?sort=suspicion", documented=True),
        "training-set-selected": State(f"training-set?selected_train={CHOSEN}"),
        "training-set-table": State("training-set?view=table"),
        "review": State("training-set?view=review", documented=True),
        "bad-link": State("test-set?label=nothing&size=huge&page=0&method=magic"),
        "link-of-other-data": State("test-set?study=00000000"),
        "no-such-example": State("explain?test=nobody"),
    }


def of_scores(study: Study, algorithm: str) -> dict[str, State]:
    """The pages of predictions and experiments. Explain shows a mistake that is almost right."""
    tests = study.table("test")["id"]
    predictions = study.predictions("test")
    wrong = ~predictions["correct"] if "correct" in predictions else predictions["output"] < np.inf
    mistake = str(tests.iloc[predictions[wrong]["output"].idxmax()])
    right = str(tests.iloc[predictions["output"].idxmax()])
    explained = resolve_row(study, "test", mistake)
    top = read_top(study, algorithm, resolve_method(study, algorithm))
    supporters = top["support_index"][explained][:40]
    opposer = study.table("train")["id"].iloc[top["oppose_index"][explained][0]]
    words = f"{len(supporters)} strongest supporters of {mistake}"
    removed = keep_set(study, supporters, words).key
    mistake, right, opposer = (quote(str(one)) for one in (mistake, right, opposer))
    return {
        "explain": State(f"explain?test={mistake}&result=wrong", documented=True),
        "explain-right": State(f"explain?test={right}"),
        "explain-both": State(f"explain?test={mistake}&show=both"),
        "explain-beside": State(f"explain?test={mistake}&beside={right}"),
        "explain-output": State(f"explain?test={mistake}", act=press("Explain…")),
        "explain-none": State("explain"),
        "training": State(f"training?test={mistake}&train={opposer}", documented=True),
        "brittle": State(brittle_address(study), documented=True),
        "brittle-verified": State("brittle?status=verified&likely=50&at_most=100"),
        "brittle-refuted": State("brittle?status=refuted&likely=50&at_most=100"),
        "map": State(f"map?train={opposer}", documented=True),
        "map-influence": State("map?kind=influence"),
        "map-selected": State(f"map?selected_train={CHOSEN}&selected=4"),
        "what-if": State(f"what-if?set={removed}", documented=True),
        "what-if-empty": State("what-if"),
        **{name: State(path, documented=True) for name, path in compare_addresses(study).items()},
        "unlearn": State(unlearn_address(study, removed), documented=True),
        "unlearn-before": State(f"{unlearn_address(study, removed)}&pane=before"),
        "unlearn-empty": State("unlearn"),
        "live-empty": State("live"),
        **(live_states(study) if answers_live(study, algorithm) else {}),
    }


def answers_live(study: Study, algorithm: str) -> bool:
    """Whether Live can explain something."""
    return has_live(study, algorithm) and bool(read_live(study, algorithm).checkpoints)


def compare_addresses(study: Study) -> dict[str, str]:
    """Compare before anything is uploaded; an upload's report, and the panes of a comparison."""
    found = {}
    for upload in study.uploads:
        found["compare-upload"] = f"compare?b={upload}"
    for path in layout.comparison_files(study.root):
        about = read_comparison(study, path.stem)
        a, b = (about[key]["algorithm"] for key in ("a", "b"))
        by = f"by_a={about['a']['method']}&by_b={about['b']['method']}"
        # The side whose first direction is the least likely to be chance.
        side = min("ab", key=lambda key: about["directions"][key][0]["p"] or 1)
        other = {"a": "b", "b": "a"}[side]
        start = f"compare?a={a}&b={b}&{by}"
        panes = {
            "compare": FOUND,
            "compare-learned": LEARNED,
            "compare-hypothesis": HYPOTHESIS,
            "compare-example": EXAMPLE,
        }
        for name, pane in panes.items():
            found[name] = f"{start}&side={side}&pane={pane}"
        found["compare-other-side"] = f"{start}&side={other}&pane={FOUND}"
    return {"compare": "compare", **found}


def brittle_address(study: Study) -> str:
    """Brittle with the first prediction that takes five removals or more, where there is one; of
    those as likely as not where none is likelier."""
    for likely in (80, 50) if has(study, "outcomes") else ():
        found = find(study, probability=likely / 100)
        shown = [row for row in found.ranked if found.size[row] >= 5]
        if shown:
            return f"brittle?likely={likely}&test={study.table('test')['id'].iloc[shown[0]]}"
    return "brittle"


def unlearn_address(study: Study, removed: str) -> str:
    """Unlearn with the last audit that says Forgotten, or the last one, or without any."""
    audits = read_audits(study)
    if not audits:
        return f"unlearn?set={removed}"
    forgot = [one for one in audits if method_verdict(one, best(one)).grade == "good"]
    audit = (forgot or audits)[-1]
    forgotten = {one.rows.tobytes(): one.key for one in kept_sets(study, 100)}
    rows = np.array(audit.forget, np.int64)
    words = f"{len(rows)} of an audit"
    return f"unlearn?set={forgotten.get(rows.tobytes()) or keep_set(study, rows, words).key}"


def live_states(study: Study) -> dict[str, State]:
    """Live, once the parts of a test example were given to it: a picture, enlarged, or a text."""
    parts: dict[str, Act] = {}
    if has(study, "pictures"):
        file = io.BytesIO()
        read_thumbnail(study, "test", 0).resize((112, 112)).save(file, "PNG")
        parts["live"] = drop(file.getvalue())
    if has(study, "texts"):
        name = "live-text" if parts else "live"
        parts[name] = write(str(study.table("test")["text"].iloc[0]))
    if len(parts) > 1:
        parts["live-both"] = both(*parts.values())
    return {name: State("live", act=act, documented=name == "live") for name, act in parts.items()}


# --- what is done on a page -----------------------------------------------------------------------


def press(name: str) -> Act:
    """Click the button whose name starts so, if the page has it."""

    def act(page: Page) -> None:
        button = page.get_by_role("button", name=re.compile(f"^{name}")).filter(visible=True)
        if button.count():
            button.first.click()
            page.get_by_test_id("stPopoverBody").wait_for()

    return act


def open_drawer(page: Page) -> None:
    """Open the jobs, which the header names on every page."""
    page.locator(".st-key-jobs_drawer button").first.click()
    page.locator(".dl-jobs").wait_for()


def open_menu(page: Page) -> None:
    """Open the menu that a phone has in place of the workspaces."""
    if page.locator(".dl-menu summary").is_visible():
        page.locator(".dl-menu summary").click()


def show_guide(page: Page) -> None:
    """Come for the first time."""
    page.evaluate("localStorage.clear()")
    page.reload()


def type_into_palette(page: Page) -> None:
    """Open the command palette, and look for an id."""
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Find a page").fill("1")
    page.get_by_role("option").nth(1).wait_for()


def drop(picture: bytes) -> Act:
    """Drop a picture into Live."""

    def act(page: Page) -> None:
        page.locator("input[type=file]").set_input_files(
            files=[{"name": "mine.png", "mimeType": "image/png", "buffer": picture}]
        )
        page.wait_for_selector(".gallery .thumb", timeout=120_000)

    return act


def write(text: str) -> Act:
    """Give Live a text."""

    def act(page: Page) -> None:
        field = page.get_by_label(re.compile("^Your (text|caption)"))
        field.fill(text)
        field.press("Control+Enter")
        page.wait_for_selector(".gallery .excerpt", timeout=120_000)

    return act


def both(first: Act, second: Act) -> Act:
    """Do one thing, then another."""

    def act(page: Page) -> None:
        first(page)
        settled(page)
        second(page)

    return act
