"""Findings of Overview, against what the study says; and what the command palette offers."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from scipy.stats import hypergeom

from dashboard.parts.palette.search import offers
from dashboard.workspaces import PAGES
from engine.api import Study
from engine.applications.curation.net_influence import net_influence
from engine.study.removal_sets import keep_set
from tests.builders.page_contents import words
from tests.builders.synthetic_study import CLASSES, write_study

ROW = re.compile(
    r'class="dl-finding" data-state="(\w+)"><b>([^<]*)</b><h3>([^<]*)</h3><p>([^<]*)</p>'
    r'<small>([^<]*)</small>(?:<a href="([^"]*)">)?'
)


def findings(app: Any) -> dict[str, tuple[str, str, str]]:
    """Title → state, count and link of each finding on the page."""
    return {
        title: (state, count, unescape(link))
        for state, count, title, _, _, link in ROW.findall(words(app))
    }


def test_every_finding_is_counted_and_leads_to_its_examples(
    visit: Any, complete_study: Study
) -> None:
    shown = findings(visit(complete_study, "overview", label=CLASSES[2]))
    assert len(shown) == 7
    net, _ = net_influence(complete_study, "cnn")
    assert net is not None
    harmful = shown["training examples hurt more than they help"]
    assert harmful[1] == f"{(net < 0).sum():,}"
    assert parse_qs(urlsplit(harmful[2]).query)["sort"] == ["harm"]
    for state, count, link in shown.values():
        assert state in ("found", "none", "missing")
        assert (count == "–") == (state == "missing")
        if link:
            parts = urlsplit(link)
            assert parts.path[2:] in {page.address for page in PAGES}
            assert parse_qs(parts.query)["study"] == [complete_study.dataset.fingerprint[:8]]
            # A slice that is left in the address is not what was counted.
            assert parse_qs(parts.query).get("label") != [CLASSES[2]] or "result=wrong" in link


def test_a_class_that_is_predicted_worse_is_named(visit: Any, complete_study: Study) -> None:
    shown = findings(visit(complete_study, "overview"))
    table = complete_study.table("test").join(complete_study.predictions("test"))
    numbers = table.groupby("label")["correct"].agg(["sum", "size"])
    right, total = int(table["correct"].sum()), len(table)
    p = np.sort(hypergeom.cdf(numbers["sum"], total, right, numbers["size"]))
    kept = p * np.arange(len(p), 0, -1) >= 0.05  # Holm: as far as the first that chance explains
    wanted = int(np.append(kept, True).argmax())
    assert shown["classes are predicted worse than the rest"][1] == str(wanted)


@pytest.mark.parametrize("fixture", ["text_study", "brightness_study", "colors_study"])
def test_every_task_has_findings_and_none_breaks(
    visit: Any, fixture: str, request: pytest.FixtureRequest
) -> None:
    study: Study = request.getfixturevalue(fixture)
    shown = findings(visit(study, "overview"))
    assert "training examples hurt more than they help" in shown
    assert ("training labels look wrong" in shown) == (study.dataset.labels == "class")


def test_what_the_palette_offers(tmp_path: Any) -> None:
    study = write_study(tmp_path / "study", n_train=40, n_test=30)
    kept = keep_set(study, range(4), "Four of them")
    table = {
        "": ("Overview", "Page", ""),
        "unle": ("Unlearn", "Experiments", "unlearn"),
        "test-17": ("Explain test-17", "test example", "explain?test=test-17"),
        "#17": ("Explain test-17", "test example", "explain?test=test-17"),
        "TRAIN-9": ("Open train-9", "training example", "training?train=train-9"),
        "four of": ("Four of them", "Set of 4 training examples", f"what-if?set={kept.key}"),
    }
    for typed, wanted in table.items():
        first = offers(study, typed)[0]
        assert (first.title, first.kind, first.address) == wanted, typed
    first = offers(study, CLASSES[3])[0]
    assert first.title == f"{CLASSES[3]}: test set"
    assert "result" in first.without
    assert not offers(study, "nothing is called so")
