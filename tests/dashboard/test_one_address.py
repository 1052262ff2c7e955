"""The address of every page: each parameter of the state goes along to every other page."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dashboard.location import STATE
from dashboard.workspaces import PAGES
from engine.api import Study
from engine.store.quantities import MEASURES
from tests.builders.synthetic_study import CLASSES

WITHOUT = {
    "margin": "range",
    "text": "texts",
    "length": "texts",
    "group": "groups",
    **dict.fromkeys(MEASURES, "retrieval"),
}
"""Parameters that a study of pictures without columns has not, or that another one replaces."""


def state(study: Study) -> dict[str, str]:
    """Some value of each parameter, none of them its default."""
    return {
        "study": study.dataset.fingerprint[:8],
        "algorithm": "cnn",
        "method": "trak",
        "label": CLASSES[1],
        "predicted": CLASSES[2],
        "result": "wrong",
        "range": "-20..20",
        "id": "test",
        "only": "0-30",
        "sort": "confidence",
        "output": "predicted",
        "selected": "1,5-7",
        "selected_train": "2-4",
        "set": "0123456789abcdef",
        "test": "test-3",
        "train": "train-4",
        "show": "both",
        "k": "5",
        "size": "small",
    }


def test_the_table_is_complete(complete_study: Study) -> None:
    assert state(complete_study).keys() | WITHOUT.keys() == set(STATE)


@pytest.mark.parametrize("view", [Path(page.file).stem for page in PAGES])
def test_every_parameter_goes_along_to_every_page(
    visit: Any, complete_study: Study, view: str
) -> None:
    wanted = state(complete_study)
    app = visit(complete_study, view, **wanted)
    kept = dict(app.query_params.items())
    assert kept | wanted == kept, "the page itself drops a part of its address"
    parts = [part.value for part in app.html if re.search(r'class="dl-(bar|pages)"', part.value)]
    links = [
        unescape(one) for one in re.findall(r'<a (?:class="[^"]+" )?href="([^"]+)', "".join(parts))
    ]
    assert {page.address for page in PAGES} <= {urlsplit(link).path[2:] for link in links}
    for link in links:
        query = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
        assert query | wanted == query, link


def test_a_default_is_one_change_of_the_address(visit: Any, complete_study: Study) -> None:
    """And a page that was opened with it changes nothing."""
    app = visit(complete_study)
    assert set(app.query_params) == {"study", "algorithm", "method"}
