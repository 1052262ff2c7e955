"""Links with invalid parameters: every page warns and still shows what it can."""

from __future__ import annotations

from typing import Any

import pytest

from engine.api import Study
from tests.builders.page_contents import cards, words


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"study": "0123abcd"}, "made for other data"),
        ({"label": "<i>Zebra</i>"}, "no class “&lt;i&gt;Zebra"),
        ({"predicted": "Zebra"}, "no class “Zebra”"),
        ({"result": "maybe"}, "not “maybe”"),
        ({"algorithm": "vit"}, "no learning algorithm “vit”"),
        ({"sort": "fun"}, "sorted by “fun”"),
        ({"margin": "2..1"}, "not “2..1”"),
        ({"margin": "nan..nan"}, "not “nan..nan”"),
        ({"page": "0"}, "page must be 1 to 60"),
        ({"size": "huge"}, "large or small, not “huge”"),
        ({"k": "many"}, "k must be 1 to 60"),
        ({"k": "9" * 5000}, "k must be 1 to 60"),
    ],
)
@pytest.mark.parametrize("view", ["overview", "explore", "explain", "training"])
def test_an_invalid_link_gets_a_warning_and_the_page(
    visit: Any, complete_study: Study, view: str, parameters: dict[str, str], message: str
) -> None:
    app = visit(complete_study, view, test="test-2", train="train-2", **parameters)
    assert message in words(app)
    assert cards(app)


def test_a_link_to_other_data_can_be_used_anyway(visit: Any, complete_study: Study) -> None:
    app = visit(complete_study, study="0123abcd")
    assert app.query_params["study"] == "0123abcd"
    app.button[0].click().run()
    assert "other data" not in words(app)
    assert app.query_params["study"] == complete_study.dataset.fingerprint[:8]
