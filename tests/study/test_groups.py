"""Groups of examples by the columns of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dashboard.slice_parameters import read_slice
from engine import DataloupeError, Study
from engine.cli.main import main
from engine.study.groups import MOST_GROUPS, group_columns, group_members, values_of_group
from engine.study.removal_sets import keep_set
from tests.builders.page_contents import cards, words
from tests.builders.toy_task import own_toy_study

COLUMNS: dict[str, tuple[list[Any], tuple[str, ...]]] = {
    "texts": (["b", "a", "b", "a"], ("a", "b")),
    "some are missing": (["b", None, "b", "a", "a"], ("a", "b")),
    "whole numbers": ([10, 9, 10, 9], ("10", "9")),
    "yes and no": ([True, False, True, True], ("False", "True")),
    "one value": (["a"] * 4, ()),
    "nothing": ([None] * 4, ()),
    "all differ": (["a", "b", "c", "d"], ()),
    "measurements": ([0.5, 1.5, 0.5, 1.5], ()),
    "too many": ([f"site {n % (MOST_GROUPS + 1)}" for n in range(200)], ()),
    "as many as may be": (
        [f"{n % MOST_GROUPS:02}" for n in range(200)],
        tuple(f"{n:02}" for n in range(MOST_GROUPS)),
    ),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_with_few_values_are_groups(case: str) -> None:
    values, wanted = COLUMNS[case]
    half = len(values) // 2
    assert values_of_group(pa.chunked_array([values[:half], values[half:]])) == wanted


def test_columns_of_a_study(toy_study: Study, small_study: Study) -> None:
    assert group_columns(toy_study) == {"site": ("site 0", "site 1", "site 2")}
    assert "label" not in group_columns(small_study)
    members = group_members(toy_study, "test", "site")
    assert list(members) == ["site 0", "site 1", "site 2"]
    np.testing.assert_array_equal(members["site 1"], toy_study.table("test")["site"] == "site 1")


def test_effects_are_averaged_over_a_column(
    toy_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    found = toy_study.counterfactual(["train-1", "train-2"], by="site")
    sites = toy_study.table("test")["site"].to_numpy()
    means = {name: found.change[sites == name].mean() for name in sorted(set(sites))}
    assert {name: one.mean for name, one in found.by_group.items()} == pytest.approx(means)
    command = ["whatif", str(toy_study.root), "--remove", "train-1,train-2", "--by", "site"]
    assert main([*command, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["by_group"]) == set(means)
    with pytest.raises(DataloupeError, match=r"grouped by 'sight'.*Did you mean 'site'\?"):
        toy_study.counterfactual(["train-1"], by="sight")


def test_a_slice_may_be_a_group(toy_study: Study) -> None:
    groups = {"a": ("x",), "a=b": ("c", "x=y")}
    problems: list[str] = []
    for text, wanted in (("a=x", ("a", "x")), ("a=b=x=y", ("a=b", "x=y"))):
        found = read_slice({"group": text}, toy_study.dataset, problems, groups)
        assert found.group == wanted
        assert found.parameters() == {"group": text}
    assert not problems
    assert read_slice({"group": "a=z"}, toy_study.dataset, problems, groups).group is None
    assert problems == ["This study has no group “a=z”; that filter is ignored."]


def test_explore_filters_by_a_group(visit: Any, toy_study: Study) -> None:
    app = visit(toy_study, "explore", group="site=site 1")
    wanted = np.flatnonzero(toy_study.table("test")["site"] == "site 1")
    assert f"site: site 1 ({len(wanted)})" in app.selectbox(key="group").options
    assert [card["row"] for card in cards(app)] == wanted[: len(cards(app))].tolist()
    app.selectbox(key="group").select(("site", "site 2")).run()
    assert app.query_params["group"] == "site=site 2"


def test_what_if_averages_over_a_group(visit: Any, toy_study: Study, tmp_path: Path) -> None:
    own = own_toy_study(toy_study, tmp_path / "own")
    app = visit(own, "what_if", set=keep_set(own, [1, 2, 3], "three").key)
    assert not app.exception
    app.selectbox(key="effect_by").select("site").run()
    shown = words(app)
    assert "Predicted effect by site" in shown
    assert "site 2" in shown
