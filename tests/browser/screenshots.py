"""Screenshots of every page, for docs/.

python -m tests.browser.screenshots STUDY [FOLDER [PAGE …]]

Compare is best of a study with a comparison, such as `dataloupe case-study augmentation` makes.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser

from dashboard.read.comparisons import EXAMPLE, FOUND, HYPOTHESIS
from engine.api import Study
from engine.applications.brittle.supports import find
from engine.applications.modeldiff.comparison import read_comparison
from engine.applications.unlearning.audit_record import read_audits
from engine.applications.unlearning.method_verdict import best, method_verdict
from engine.store import layout
from engine.study.examples import read_thumbnail
from engine.study.names import resolve_row
from engine.study.rankings import find_influences
from engine.study.removal_sets import keep_set, kept_sets
from tests.browser.chromium import DESKTOP, PHONE, chromium, server, settled

VIEWS = {
    "light": (DESKTOP, "light"),
    "dark": (DESKTOP, "dark"),
    "phone": (PHONE, "light"),
}


def addresses(root: Path) -> dict[str, str]:
    """Name of a page → its address. Explain shows a mistake that is almost right."""
    study = Study.open(root)
    predictions = study.predictions("test")
    mistakes = predictions[~predictions["correct"]]["output"]
    mistake = study.table("test")["id"].iloc[mistakes.idxmax()]
    explained = resolve_row(study, "test", str(mistake))
    opposer = study.table("train")["id"].iloc[find_influences(study, explained, 1)[2][0]]
    supporters = find_influences(study, explained, 40)[0]
    removed = keep_set(study, supporters, f"40 strongest supporters of {mistake}").key
    return {
        "overview": "",
        "test-set": "test-set",
        "training-set": "training-set?sort=suspicion",
        "review": "training-set?view=review",
        "explain": f"explain?test={mistake}&result=wrong",
        "training": f"training?test={mistake}&train={opposer}",
        "brittle": brittle_address(study),
        "map": f"map?train={opposer}",
        "what-if": f"what-if?set={removed}",
        **compare_addresses(study),
        "unlearn": unlearn_address(study, removed),
        "live": "live",
        "quality": "quality",
        "jobs": "jobs",
        "provenance": "provenance",
    }


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
        panes = {"compare": FOUND, "compare-hypothesis": HYPOTHESIS, "compare-example": EXAMPLE}
        for name, pane in panes.items():
            found[name] = f"compare?a={a}&b={b}&{by}&side={side}&pane={pane}"
    return {"compare": "compare", **found}


def brittle_address(study: Study) -> str:
    """Brittle with the first prediction that takes five removals or more, where there is one; of
    those as likely as not where none is likelier."""
    for likely in (80, 50):
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


def own_picture(study: Study) -> bytes:
    """What is dropped into Live: a test picture, enlarged."""
    file = io.BytesIO()
    read_thumbnail(study, "test", 0).resize((112, 112)).save(file, "PNG")
    return file.getvalue()


def screenshot(
    browser: Browser, url: str, view: str, target: Path, dropped: bytes | None = None
) -> None:
    """Take one picture of the first screen, once this picture was dropped into it."""
    size, scheme = VIEWS[view]
    context = browser.new_context(viewport=size, color_scheme=scheme)
    context.add_init_script("localStorage.setItem('dataloupe.first-steps', 'dismissed')")
    page = context.new_page()
    page.goto(url)
    if dropped is not None:
        page.locator("input[type=file]").set_input_files(
            files=[{"name": "mine.png", "mimeType": "image/png", "buffer": dropped}]
        )
        page.wait_for_selector(".gallery .thumb", timeout=120_000)
    page.locator(
        ".gallery .thumb, .gallery .excerpt, .dl-notice, .dl-stages, .dl-intervals, .dl-job, "
        ".js-plotly-plot .plot-container"
    ).filter(visible=True).first.wait_for()
    settled(page).screenshot(path=target)
    context.close()


def main(root: Path, folder: Path, only: list[str]) -> None:
    """Take the pictures of all pages, or of those named."""
    folder.mkdir(parents=True, exist_ok=True)
    with server(root) as url, chromium() as browser:
        for name, path in addresses(root).items():
            if only and name not in only:
                continue
            for view in VIEWS:
                dropped = own_picture(Study.open(root)) if name == "live" else None
                screenshot(browser, f"{url}/{path}", view, folder / f"{name}-{view}.png", dropped)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2] if len(sys.argv) > 2 else "docs/screenshots"),
        sys.argv[3:],
    )
