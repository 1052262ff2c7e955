"""What a person writes means the same at every entrance."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dashboard.read.studies import requested_row, typed_id
from engine.api import Study
from engine.applications.unlearning.rows import forget_set
from engine.applications.verification.verifying import request_of
from engine.build.retraining import removal_of
from engine.cli.main import main
from engine.exchange.uploads.keeping import rename
from engine.store.errors import DataloupeError, UnknownName, UploadError
from engine.store.layout import ROWS_PER_SHARD
from engine.study.names import (
    find_row,
    find_rows,
    name_examples,
    read_names,
    read_names_of,
    resolve_algorithm,
    resolve_method,
    resolve_row,
    resolve_training_rows,
    resolve_upload,
)
from engine.study.removal_sets import (
    keep_set,
    parse_examples,
    parse_table,
    read_examples,
    removal_set,
)
from engine.study.uploads import Upload, write_upload
from tests.builders.copies import copy_of
from tests.builders.sentences import SPEC, sentences
from tests.builders.synthetic_study import write_study

TRAINED = {4: "#9", 5: "17", 6: " 6 ", 7: "a, b"}
"""Training ids that could be taken for something else; the others are 0001, 0002, …"""

# What is written, and the row it means in a study with ids of its own; None: it is refused.
WORDS: dict[str, int | None] = {
    "0017": 16,  # an id with leading zeros
    "17": 5,  # an id, and neither row 17 nor 0017
    "18": None,  # a bare number is never a row
    "018": None,
    "#18": 18,
    "#0": 0,
    "#9": 4,  # an id that looks like a row wins
    "#60": None,  # past the last row
    "#-1": None,
    "#": None,
    "##3": None,
    "-1": None,
    "²": None,
    "١٧": None,
    "#١٧": None,
    "1e1": None,
    "17.0": None,
    "0x11": None,
    "nobody": None,
    "x" * 10_000: None,
    "\ud800": None,
}


@pytest.fixture(scope="module")
def own_ids(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A whole study of 60 + 20 sentences read from CSV, whose ids are numbers with zeros."""
    root: Path = tmp_path_factory.mktemp("names") / "study"
    (root / "sentences").mkdir(parents=True)
    for split, n, first in (("train", 60, 1), ("test", 20, 1001)):
        table = sentences(n, first)
        known = TRAINED if split == "train" else {}
        table.insert(0, "key", [known.get(row, f"{first + row:04d}") for row in range(n)])
        pd.DataFrame(table).to_csv(root / "sentences" / f"{split}.csv", index=False)
    spec = SPEC.replace('source = "sentences"', 'source = "sentences"\nid = "key"')
    study = Study.create(root, spec.replace("epochs = 20", "epochs = 2"))
    study.build(workers=0)
    return study


@pytest.fixture(scope="module")
def made_ids(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose ids Dataloupe made."""
    return write_study(tmp_path_factory.mktemp("made") / "study")


def in_kept_set(study: Study, word: str) -> list[int]:
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_of(study, Path(folder) / "study")
        return keep_set(copy, [word], "").rows.tolist()


def cli_rows(study: Study, word: str, capsys: pytest.CaptureFixture[str]) -> list[int]:
    code = main(["whatif", str(study.root), f"--remove={word}", "--json"])
    out, err = capsys.readouterr()
    if code:
        assert err.count("\n") == 1
        raise DataloupeError(err)
    rows: list[int] = json.loads(out)["removed"]
    return rows


def in_file(study: Study, word: str) -> list[int]:
    path = study.root.parent / "list.csv"
    path.write_text(f"id\n{word}\n", encoding="utf-8")
    return read_examples(study, str(path)).tolist()


ENTRANCES: dict[str, Callable[[Study, str], object]] = {
    "row": lambda study, word: [resolve_row(study, "train", word)],
    "rows": lambda study, word: resolve_training_rows(study, [word]).tolist(),
    "python": lambda study, word: study.counterfactual([word]).removed.tolist(),
    "text of the command line": lambda study, word: read_examples(study, word).tolist(),
    "file": in_file,
    "kept set": lambda study, word: in_kept_set(study, word),
    "removal": lambda study, word: list(removal_of(study, [word])),
    "forget set": lambda study, word: list(forget_set(study, [word])),
    "verification": lambda study, word: list(request_of(study, [word], []).removed),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("word", WORDS, ids=lambda word: ascii(word)[:12])
def test_a_word_means_one_example_everywhere(own_ids: Study, entrance: str, word: str) -> None:
    resolve = ENTRANCES[entrance]
    if entrance == "file" and not word.isprintable():
        return  # no file can hold it
    row = WORDS[word]
    if row is not None:
        assert resolve(own_ids, word) == [row]
        return
    with pytest.raises(UnknownName) as error:
        resolve(own_ids, word)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("word", WORDS, ids=lambda word: ascii(word)[:12])
def test_what_is_pasted_into_a_page_means_the_same(own_ids: Study, word: str) -> None:
    row = WORDS[word]
    assert find_row(own_ids, "train", word) == row
    assert requested_row(own_ids, "train", word)[0] == row
    named = [parse_examples(own_ids, word), name_examples(own_ids, "train", [word])]
    if word.isprintable():
        named.append(parse_table(own_ids, word.encode()))
    for one in named:
        assert one.rows.tolist() == ([] if row is None else [row])
        assert one.unknown == ([word] if row is None else [])


def test_removing_0017_removes_exactly_that(own_ids: Study, capsys) -> None:
    table = own_ids.table("train")
    for words, ids in (
        ("0017", ["0017"]),
        ("0017,0018 0017", ["0017", "0018"]),
        ("#16,0017", ["0017"]),
        ("17;#17", ["17", "0018"]),
        ("a, b", ["a, b"]),
        (" 6 ", [" 6 "]),
    ):
        assert table["id"][cli_rows(own_ids, words, capsys)].tolist() == ids
    with pytest.raises(DataloupeError, match=r"no training example '0071'\. Did you mean '0017'"):
        cli_rows(own_ids, "0071", capsys)
    with pytest.raises(DataloupeError, match="no training examples '18', '19'"):
        cli_rows(own_ids, "18,19,0001", capsys)


def test_the_other_split_is_resolved_alike(own_ids: Study, capsys) -> None:
    assert own_ids.explain("1003").row == own_ids.explain("#2").row == own_ids.explain(2).row == 2
    for word in ("3", "0003", "#20", ""):
        with pytest.raises(UnknownName, match="no test example"):
            own_ids.explain(word)
    with pytest.raises(UnknownName, match=r"no test example '1031'\. Did you mean '1013'"):
        own_ids.explain("1031")
    assert main(["explain", str(own_ids.root), "--test", "2"]) == 2
    err = capsys.readouterr().err
    assert "no test example '2'" in err
    assert "a row from #0 to #19" in err
    assert main(["explain", str(own_ids.root), "--test", "#2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "1003"
    assert request_of(own_ids, ["0001"], ["1005", "#2", 2]).tests == (4, 2)


def test_white_space_around_a_word_does_not_count(own_ids: Study) -> None:
    assert find_rows(own_ids, "train", [" 0017\n", "\t#18 ", " 6 ", "6", "  "]).tolist() == [
        16,
        18,
        6,
        -1,
        -1,
    ]


def test_lists_say_what_is_repeated_and_unknown(own_ids: Study) -> None:
    named = parse_examples(own_ids, "0017, 0018\n0017 #16;nobody\na, b\n0071 nobody")
    assert named.rows.tolist() == [7, 16, 17]
    assert named.unknown == ["nobody", "0071"]
    assert named.repeated == 2
    assert parse_examples(own_ids, "0071").hint.startswith(" Did you mean '0017'")
    for content in (b"id\n0017\n#18\n", b"id\tlabel\n0017\tgood\n#18\tbad\n", b"0017,x\n#18,y\n"):
        assert parse_table(own_ids, content).rows.tolist() == [16, 18]


def test_an_id_is_never_taken_for_a_file(
    own_ids: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0017").write_text("0018\n")
    assert read_examples(own_ids, "0017").tolist() == [16]


def test_whole_numbers_from_python_are_rows(own_ids: Study) -> None:
    rows = [3, np.int64(18), 3]
    assert resolve_training_rows(own_ids, rows).tolist() == [3, 18]
    assert resolve_training_rows(own_ids, np.array([18, 3, 3])).tolist() == [3, 18]
    for wrong in (60, -1, 1.0, True, None, [1]):
        with pytest.raises(UnknownName, match="no training example"):
            resolve_training_rows(own_ids, [wrong])  # type: ignore[list-item]
    for none, why in (([], "empty"), (range(60), "leaves nothing")):
        with pytest.raises(DataloupeError, match=why):
            resolve_training_rows(own_ids, none)


def test_where_dataloupe_made_the_ids_a_number_is_short_for_one(made_ids: Study) -> None:
    for word, row in {"17": 17, "test-17": 17, "#17": 17, "0": 0, " 3 ": 3}.items():
        assert find_row(made_ids, "test", word) == row
        assert typed_id(made_ids, "test", word) == f"test-{row}"
    for word in ("017", "-1", "24", "1_7", "+1", "train-17", "test-017", "²", "١٧"):
        assert find_row(made_ids, "test", word) is None
        assert typed_id(made_ids, "test", word) == word
    assert typed_id(made_ids, "test", " ") is None
    assert "test-17" in requested_row(made_ids, "test", "test-71")[1]
    assert requested_row(made_ids, "test", None) == (None, "")


def test_pages_show_ids_in_their_addresses_and_suggest_the_nearest(
    own_ids: Study, visit: Callable[..., object]
) -> None:
    app = visit(own_ids, "explain", test="1031")
    shown = " ".join(element.proto.body for element in app.get("html"))  # type: ignore[attr-defined]
    assert "Did you mean" in shown
    assert "1013" in shown


def test_unknown_names_get_the_nearest(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", algorithms=("cnn", "resnet"))
    with pytest.raises(UnknownName, match=r"no algorithm 'restnet'; it has .*mean 'resnet'"):
        resolve_algorithm(study, "restnet")
    with pytest.raises(UnknownName, match=r"no scores by method 'tark'; it has trak.*'trak'"):
        resolve_method(study, "cnn", "tark")
    kept = keep_set(study, [1, 2], "two")
    near = kept.key[:-1] + ("0" if kept.key[-1] != "0" else "1")
    with pytest.raises(UnknownName, match=f"has no removal set “{near}”.*mean '{kept.key}'"):
        removal_set(study, near)
    for wrong in ("", "../../x", kept.key.upper() + "Z", "x" * 10_000):
        with pytest.raises(UnknownName, match="has no removal set"):
            removal_set(study, wrong)


def test_an_upload_is_found_by_its_id_and_suggested_by_its_name(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    upload = Upload(
        id="upload-0123456789ab",
        name="My model",
        who="",
        when="2026-01-01T00:00:00+00:00",
        architecture="mlp",
        architecture_options={},
        files=(),
        preprocessing="",
        dataset=study.dataset.fingerprint,
    )
    with pytest.raises(UploadError, match=r"no upload 'upload-1'; it has none\."):
        resolve_upload(study, "upload-1")
    write_upload(study.root, upload)
    assert resolve_upload(study, upload.id) == upload
    assert resolve_algorithm(study, upload.id) == upload.id
    for resolve in (resolve_upload, resolve_algorithm):
        with pytest.raises(DataloupeError, match=f"mean '{upload.id}', which has this name"):
            resolve(study, "My model")
        with pytest.raises(DataloupeError, match=f"mean '{upload.id}'"):
            resolve(study, "upload-0123456789aa")
    with pytest.raises(UploadError, match="mean 'upload-0123456789ab'"):
        rename(study, "upload-012345678", "x")


def test_names_of_some_examples_are_in_their_order(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", n_train=ROWS_PER_SHARD + 9, stage="data")
    every = read_names(study, "train").to_pylist()
    rows = [ROWS_PER_SHARD + 8, 5, 0, ROWS_PER_SHARD, 5]
    assert read_names_of(study, "train", rows) == [every[row] for row in rows]
    assert read_names_of(study, "train", np.array([], np.int64)) == []
