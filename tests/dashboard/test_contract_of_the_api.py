"""One contract of quantities, view by view: the page, the API, the terminal and files for programs
give the same numbers, with the same rounding, unit and name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from dashboard.api.curated import NET_SCORE
from dashboard.api.reading import BY_NAME, answer_of
from dashboard.api.total_influence import SCORES
from dashboard.parts.controls.downloads import as_csv as explanation_csv
from dashboard.parts.controls.downloads import rows_as_csv
from dashboard.read.studies import examples
from dashboard.read.supports import brittle, supports
from engine import Study
from engine.applications.brittle.table import as_bytes
from engine.applications.curation.net_influence import net_influence
from engine.applications.curation.table import curation_table
from engine.applications.modeldiff.report_file import as_csv, as_dict, as_html
from engine.applications.unlearning.audit_record import read_audits
from engine.cli.main import main
from engine.store import quantities
from engine.store.layout import TRAK
from engine.store.quantities import Quantity
from engine.study.removal_sets import keep_set, name_set
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of
from tests.builders.page_contents import cards, everything

K = 5
TEST, TRAIN = "test-7", "train-11"
REMOVED = list(range(120))
FORGET = list(range(2, 40, 3))
QUANTITIES = {
    one.name: one
    for one in (*vars(quantities).values(), SCORES, NET_SCORE)
    if isinstance(one, Quantity)
}


@dataclass(frozen=True)
class Case:
    """One view.

    Attributes:
        page: Its page and the parameters of that.
        asked: Parameters of the API.
        shown: Numbers of the answer that the page shows; `*` stands for every entry of a list, and
            `~` at the end says that it shows the interval, too.
        exported: Number of the answer → where `export` has it.
        export: What else gives the numbers: the terminal as JSON, or Python.
        two: Whether it takes the study with two algorithms.
    """

    page: tuple[str, dict[str, str]]
    asked: dict[str, str]
    shown: tuple[str, ...]
    exported: dict[str, str] = field(default_factory=dict)
    export: Callable[[Study, Any], Any] | None = None
    two: bool = False


def verb(*words: str) -> Callable[[Study, Any], Any]:
    """The JSON that a verb prints."""

    def run(study: Study, capsys: pytest.CaptureFixture[str]) -> Any:
        capsys.readouterr()
        assert main([words[0], str(study.root), *words[1:], "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def every_label(study: Study, _: Any) -> Any:
    """What `dataloupe labels --out labels.json` writes."""
    found = study.label_suspicion("mlp")
    net, method = net_influence(study, "mlp")
    return curation_table(study, found.order, found, {}, net, method).to_pylist()


def comparison(study: Study) -> str:
    return str(study.compare("cnn", "other", method_a="datamodel", method_b="trak")["id"])


NAMES = ",".join(f"#{row}" for row in REMOVED)
SET = "the first"
CASES = {
    "overview": Case(
        ("overview", {}),
        {},
        (
            "test.accuracy",
            "training.accuracy",
            "most_influential.*.total_influence",
            "most_influential.*.helping",
            "most_influential.*.hurting",
            "trust.lds~",
        ),
    ),
    "test-set": Case(("explore", {}), {}, ("examples.*.confidence",)),
    "training-set": Case(
        ("training_set", {"sort": "harm"}), {"sort": "harm"}, ("examples.*.net_influence",)
    ),
    "labels": Case(
        ("training_set", {"sort": "suspicion"}),
        {"page": "all"},
        ("labels.0.label_log_odds", "labels.1.label_log_odds"),
        {
            "labels.*.label_suspicion": "*.label_suspicion",
            "labels.*.label_log_odds": "*.label_log_odds",
            "labels.*.label_margin": "*.label_margin",
            "labels.*.neighbors_disagree": "*.neighbors_disagree",
            "labels.*.self_influence": "*.self_influence",
            "labels.*.net_influence": "*.net_influence",
        },
        every_label,
    ),
    "explain": Case(
        ("explain", {"test": TEST, "k": str(K), "show": "both"}),
        {"test": TEST, "k": str(K), "show": "both"},
        (
            "example.confidence",
            "example.model_output",
            "probabilities.0.probability",
            "supporting.*.influence",
            "supporting.*.score",
            "opposing.*.influence",
            "opposing.*.score",
            "without_supporting~",
            "without_opposing~",
            "similar.*.similarity",
            "trust.lds~",
        ),
        {
            "example.confidence": "confidence",
            "example.model_output": "output",
            "supporting.*.influence": "supporting.*.influence",
            "supporting.*.score": "supporting.*.score",
            "opposing.*.influence": "opposing.*.influence",
            "opposing.*.score": "opposing.*.score",
            "trust.lds": "badge.lds",
            "trust.slope": "badge.slope",
        },
        verb("explain", "--test", TEST, "--k", str(K)),
    ),
    "training": Case(
        ("training", {"train": TRAIN, "k": str(K)}),
        {"train": TRAIN, "k": str(K)},
        (
            "example.helping",
            "example.hurting",
            "helps.*.influence",
            "helps.*.score",
            "hurts.*.influence",
            "hurts.*.score",
            "similar.*.similarity",
        ),
    ),
    "what-if": Case(
        ("what_if", {"set": SET}),
        {"set": SET, "page": "all"},
        ("by_group.*.change~",),
        {
            "predictions.*.change": "change",
            "predictions.*.before": "before",
            "predictions.*.after": "after",
        },
        verb("whatif", "--remove", NAMES),
    ),
    "brittle": Case(
        ("brittle", {"at_most": "100"}),
        {"at_most": "100", "page": "all"},
        (),
        {
            "predictions.*.logit_gap": "*.logit_gap",
            "predictions.*.logit_gap_after": "*.logit_gap_after",
            "predictions.*.confidence": "*.confidence",
            "predictions.*.flip_probability": "*.flip_probability",
            "predictions.*.model_output": "*.margin",
        },
        verb("brittle", "--at-most", "100"),
    ),
    "quality": Case(
        ("quality", {}),
        {},
        ("methods.*.lds~", "trust.noise_ceiling~"),
        {"methods.*.lds": "methods.*.lds.mean", "methods.*.coverage": "methods.*.coverage"},
        verb("evaluate"),
    ),
    "compare": Case(
        ("compare", {"by_a": "datamodel"}),
        {"by_a": "datamodel"},
        (
            "a.directions.*.own_variance",
            "a.directions.*.other_variance",
            "a.directions.0.stability",
            "a.directions.0.own_accuracy",
        ),
        {
            "a.directions.*.own_variance": "directions.a.*.own_variance",
            "b.directions.*.other_variance": "directions.b.*.other_variance",
            "a.directions.*.stability": "directions.a.*.stability",
        },
        verb("compare", "--algorithms", "cnn", "other", "--method", "datamodel", "trak"),
        two=True,
    ),
    "unlearn": Case(
        ("unlearn", {"set": SET, "pane": "audit"}),
        {},
        (
            "audits.0.methods.*.parts.0.klom~",
            "audits.0.methods.*.parts.0.floor~",
            "audits.0.methods.*.parts.0.accuracy",
        ),
        {
            "audits.0.methods.*.parts.0.klom": "methods.*.forget.at_half.mean.mean",
            "audits.0.methods.*.parts.2.accuracy": "methods.*.test.accuracy",
            "audits.0.methods.*.cost": "methods.*.cost_share",
        },
        lambda study, _: read_audits(study, "cnn")[-1].to_dict(),
        two=True,
    ),
}


@pytest.fixture(scope="module")
def one(small_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    found = give_units(copy_of(small_study, tmp_path_factory.mktemp("api") / "study"))
    keep_set(found, REMOVED, SET)
    return found


def answer(study: Study, view: str, given: dict[str, str]) -> Any:
    return json.loads(answer_of(study.root, BY_NAME[view], given).to_json())


def with_set(study: Study, given: dict[str, str], rows: list[int]) -> dict[str, str]:
    """The parameters, with the key of the set that they name."""
    if "set" not in given:
        return given
    return given | {"set": name_set(study, rows, given["set"]).key}


def found_at(content: Any, path: str) -> Iterator[Any]:
    """What lies at a path such as `supporting.*.score`; `*` also takes every value of an object."""
    name, _, rest = path.partition(".")
    if not path:
        yield content
    elif name == "*":
        for part in content.values() if isinstance(content, dict) else content:
            yield from found_at(part, rest)
    else:
        yield from found_at(content[int(name) if name.isdigit() else name], rest)


def numbers_in(content: Any) -> Iterator[dict[str, Any]]:
    """Every number of an answer."""
    if isinstance(content, dict) and "quantity" in content:
        yield content
    elif isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from numbers_in(part)


@pytest.mark.parametrize("view", CASES)
def test_a_view_is_the_same_everywhere(
    view: str,
    one: Study,
    audited: Study,
    visit: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = CASES[view]
    study, rows = (audited, FORGET) if case.two else (one, REMOVED)
    found = answer(study, view, with_set(study, case.asked, rows))
    # Every number of an answer is written by its quantity.
    numbers = list(numbers_in(found))
    assert numbers
    for number in numbers:
        of = next(
            quantity
            for name, quantity in QUANTITIES.items()
            if number["quantity"] in (name, name.format(found["output"]))
        )
        assert number["text"] == of.text(number["value"]), number
        unit = of.unit.format(found["output"])
        assert number["unit"] == (unit or None), number
    # The page.
    page, parameters = case.page
    app = visit(study, page, **with_set(study, parameters, rows))
    text = everything(app)
    for path in case.shown:
        shown = list(found_at(found, path.removesuffix("~")))
        assert shown, path
        for number in shown:
            if number is not None:
                assert number["text"] in text, (path, number)
                assert not path.endswith("~") or number["interval"] in text, (path, number)
    if view == "overview":
        for finding in answer(study, "findings", {})["findings"]:
            assert finding["title"] in text
            assert finding["evidence"] in text
    # What a page writes into its address is taken by its twin.
    written = {
        name: value if isinstance(value, str) else value[0]
        for name, value in app.query_params.items()
    }
    assert {"study", "algorithm", "method"} <= set(written)
    assert answer(study, view, written)["algorithm"] == written["algorithm"]
    # The terminal, or Python.
    if case.export is None:
        return
    exported = case.export(study, capsys)
    for path, other in case.exported.items():
        mine = [None if n is None else n["value"] for n in found_at(found, path)]
        theirs = [
            value
            for at in found_at(exported, other)
            for value in (at if isinstance(at, list) else [at])
        ]
        assert mine == theirs, path
        assert mine


def column(text: str, name: str) -> list[float]:
    return [float(line[name]) for line in csv.DictReader(io.StringIO(text)) if line[name]]


def test_files_hold_what_the_api_gives(one: Study, audited: Study) -> None:
    """CSV of an explanation, of a slice, of the brittle predictions and of a comparison."""

    def values(found: Any, *paths: str) -> list[float]:
        return [n["value"] for path in paths for n in found_at(found, path) if n is not None]

    explained = answer(one, "explain", {"test": TEST, "k": str(K)})
    file = explanation_csv(one.explain(TEST, K))
    for name in ("influence", "score"):
        assert column(file, name) == values(explained, f"supporting.*.{name}", f"opposing.*.{name}")
    tests = examples(one, "test", "mlp")
    file = rows_as_csv(tests, np.arange(one.dataset.n_test))
    listed = answer(one, "test-set", {"page": "all"})
    assert column(file, "confidence") == values(listed, "examples.*.confidence")
    assert column(file, "margin") == values(listed, "examples.*.model_output")
    table = brittle(one, supports(one, "mlp", TRAK, 100))[0]
    listed = answer(one, "brittle", {"at_most": "100", "page": "all"})
    file = as_bytes(table, "csv").decode()
    assert column(file, "logit_gap_after") == values(listed, "predictions.*.logit_gap_after")
    assert column(file, "support") == list(found_at(listed, "predictions.*.data_support"))
    found, id_ = answer(audited, "compare", {"by_a": "datamodel"}), comparison(audited)
    along = values(
        found,
        *(
            f"{side}.directions.{number}.{part}.*.coordinate"
            for side in ("a", "b")
            for number in range(len(found[side]["directions"]))
            for part in ("training", "tests")
        ),
    )
    assert column(as_csv(audited, id_), "value") == along


def test_the_report_of_a_comparison_reads_as_the_page(audited: Study) -> None:
    found, id_ = answer(audited, "compare", {"by_a": "datamodel"}), comparison(audited)
    page = as_html(audited, id_)
    kept = as_dict(audited, id_)["comparison"]
    for side in ("a", "b"):
        for one, other in zip(found[side]["directions"], kept["directions"][side], strict=True):
            assert f"{one['stability']['text']}.</p>" in page
            for name in ("own_variance", "other_variance"):
                assert f"</span> {one[name]['text']}</td>" in page
                assert one[name]["value"] == other[name]
            assert one["reading"] == other["reading"]


def test_cards_of_brittle_predictions_are_those_of_the_api(one: Study, visit: Any) -> None:
    found = answer(one, "brittle", {"at_most": "100", "page": "all"})["predictions"]
    shown = cards(visit(one, "brittle", at_most="100"))
    assert [card["row"] for card in shown] == [one["row"] for one in found]
    assert [card["score"] for card in shown] == [
        f"{one['flip_probability']['text']} · k {one['data_support']}" for one in found
    ]
