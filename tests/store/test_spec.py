"""A wrong study.toml is answered with file, line, key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.store.errors import SpecError
from engine.store.spec import load_spec

GOOD = """\
name = "Test"

[data]
source = "fashion-mnist"

[algorithms.cnn]
architecture = "resnet-small"
epochs = 2
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def test_a_small_spec_is_enough(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, GOOD))
    assert spec.algorithms["cnn"].epochs == 2
    assert spec.trak.damping == "auto"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("epochs = 2", "epoch = 2", 8, ["unknown key 'algorithms.cnn.epoch'", "'epochs'"]),
        ("epochs = 2", "zebra = 2", 8, ["unknown key", "allowed:", "batch_size"]),
        ("epochs = 2", 'epochs = "many"', 8, ["algorithms.cnn.epochs", "'many'", "integer"]),
        ("epochs = 2", "epochs = 0", 8, ["greater than or equal to 1"]),
        ("epochs = 2", 'optimizer = "lion"', 8, ["'sgd' or 'adamw'"]),
        ('source = "fashion-mnist"', "", 3, ["'data.source' is missing"]),
        ("[algorithms.cnn]", '[algorithms."a b"]', 6, ["'a b'", "letters, digits"]),
        ('name = "Test"', 'name = "Test"\nseed = -1', 2, ["seed", "-1"]),
        (
            "[algorithms.cnn]",
            '[trak]\nroad = "primal"\n\n[algorithms.cnn]',
            7,
            ["'trak.road' has a new name", "write 'trak.solver'"],
        ),
    ],
)
def test_errors_name_line_key_and_what_is_allowed(tmp_path, old, new, line, words) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: "), message
    for word in words:
        assert word in message


def test_a_union_key_is_named_without_its_branches(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, GOOD + '[trak]\ndamping = "much"\n'))
    assert "trak.damping = 'much': " in str(caught.value)
    assert "'auto'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_hold_no_path_parts(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="letters, digits"):
        load_spec(write(tmp_path, GOOD.replace("[algorithms.cnn]", '[algorithms."../up"]')))


def test_broken_toml_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not valid TOML"):
        load_spec(write(tmp_path, "name = "))
    with pytest.raises(SpecError, match="does not exist"):
        load_spec(tmp_path / "nothing.toml")


def test_weights_and_initial_weights_exclude_each_other(tmp_path: Path) -> None:
    text = GOOD + 'weights = ["a.safetensors"]\ninitial_weights = "b.safetensors"\n'
    with pytest.raises(SpecError, match="exclude each other"):
        load_spec(write(tmp_path, text))
