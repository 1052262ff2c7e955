"""Pictures that checkpoints make become the test split of a new study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import Study, store
from engine.applications.verification.made import read_made
from engine.build.build import build_data
from engine.build.generating import generate
from engine.cli.main import main
from engine.store import layout
from engine.store.errors import DataloupeError, MissingCapability, SpecError, StoreError
from engine.study.examples import read_stacked_arrays
from engine.study.trajectories import read_making
from engine.tasks import load_task
from tests.builders import diffusion
from tests.builders.copies import copy_of

COUNT, HELD_OUT = 4, diffusion.N_TEST


def test_its_test_split_was_made_from_the_same_seeds_by_each_checkpoint(made_study: Study) -> None:
    table = made_study.table("test")
    assert len(table) == 2 * COUNT + HELD_OUT
    own = table[table["origin"] == "made"]
    assert own["id"].tolist()[:2] == ["seed-6-by-0", "seed-7-by-0"]
    assert own["seed"].tolist() == [6, 7, 8, 9] * 2
    assert own["checkpoint"].tolist() == [0] * COUNT + [1] * COUNT
    assert own["class"].tolist() == ["left", "right"] * COUNT
    assert (table["origin"][2 * COUNT :] == "held out").all()


def test_what_was_there_before_has_the_same_outputs(
    made_study: Study, squares_study: Study
) -> None:
    """The models, the seeds of their noise and the pictures are the same."""
    for split, start in (("train", 0), ("test", 2 * COUNT)):
        old, new = (study.predictions(split) for study in (squares_study, made_study))
        np.testing.assert_array_equal(new["output"][start:], old["output"])
        arrays = [read_stacked_arrays(study, split) for study in (squares_study, made_study)]
        for name in ("input", "class_labels", "key"):
            np.testing.assert_array_equal(arrays[1][name][start:], arrays[0][name])
    assert made_study.table("train")["id"].tolist() == squares_study.table("train")["id"].tolist()


def test_trajectories_are_kept(made_study: Study) -> None:
    found = store.read_tensors(layout.trajectories_file(made_study.root))
    frames, denoised = found["frames"], found["denoised"]
    assert frames.shape == denoised.shape == (2 * COUNT, 3, 1, 8, 8)
    assert found["timesteps"].tolist() == [50, 28, 1]
    np.testing.assert_array_equal(frames[:COUNT, 0], frames[COUNT:, 0], "they start from one noise")
    assert (frames[:COUNT, 1] != frames[COUNT:, 1]).any()
    pictures = read_stacked_arrays(made_study, "test")["input"][: 2 * COUNT]
    np.testing.assert_array_equal(denoised[:, -1], pictures)


def test_made_pictures_are_explained_and_can_be_trained_without_some(
    made_study: Study, tmp_path: Path
) -> None:
    made = copy_of(made_study, tmp_path / "own")
    found = made.explain("seed-6-by-1")
    assert found.supporting
    verified = made.verify([found.supporting[0].id], tests=["seed-6-by-1"], seeds=2, workers=0)
    assert verified.outcomes[0].without
    again = read_made(made, verified)
    assert again is not None
    assert again.seeds.tolist() == [6, 7, 8, 9]
    # Models trained again with all data are the checkpoints, and make the same from a seed.
    pictures = np.array(read_stacked_arrays(made, "test")["input"][: 2 * COUNT])
    np.testing.assert_array_equal(again.with_all.reshape(pictures.shape), pictures)
    moved = (again.without.astype(float) - again.with_all) / 255
    np.testing.assert_allclose(again.change, np.sqrt((moved**2).mean((2, 3, 4))).mean(0))
    assert (again.change > 0).all()


def test_a_picture_follows_from_its_seed(made_study: Study, squares_study: Study) -> None:
    from engine.build.models import load_checkpoint

    make = load_task("diffusion").generate
    assert make is not None
    model, encoding = load_checkpoint(squares_study, "unet", 1, "cpu"), made_study.dataset.encoding
    alone = make(model, encoding, np.array([8]), 10, 2, 0.5)
    table = made_study.table("test")
    row = table.index[(table["seed"] == 8) & (table["checkpoint"] == 1)][0]
    np.testing.assert_array_equal(
        alone.pictures[0], read_stacked_arrays(made_study, "test")["input"][row]
    )


def test_guidance_is_kept_and_used_again(squares_study: Study, tmp_path: Path) -> None:
    given = {"count": 2, "steps": 4, "frames": 1}
    plain, strong = (
        generate(squares_study, tmp_path / name, guidance=guidance, **given)
        for name, guidance in (("plain", 0.0), ("strong", 3.0))
    )
    makings = [read_making(one) for one in (plain, strong)]
    assert [one.guidance for one in makings if one is not None] == [0.0, 3.0]
    shown = [
        store.read_tensors(layout.trajectories_file(one.root))["denoised"]
        for one in (plain, strong)
    ]
    assert (shown[0] != shown[1]).any()
    with pytest.raises(DataloupeError, match="not between 0 and 20"):
        generate(squares_study, tmp_path / "new", guidance=-1.0, **given)


def test_classes_keep_their_numbers(tmp_path: Path) -> None:
    """Models know them by number, in the source's order, which is not that of their names."""
    import datasets

    names = ["right", "left"]
    for split in ("train", "test"):
        pictures, sides = diffusion.squares(30, seed=len(split))
        columns = {"image": [Image.fromarray(one) for one in pictures], "label": 1 - sides}
        features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
        table = datasets.Dataset.from_dict(columns, datasets.Features(features))
        table.to_parquet(tmp_path / "squares" / f"{split}.parquet")
    text = diffusion.SPEC.format(source=tmp_path / "squares", task="")
    for old, new in (("epochs = 6", "epochs = 1"), ("checkpoints = 2", "checkpoints = 1")):
        text = text.replace(old, new)
    study = Study.create(tmp_path / "study", text.partition("[subset_runs]")[0])
    study.build("cpu", workers=0)
    new = generate(Study.open(study.root), tmp_path / "new", count=3, steps=2, frames=1)
    build_data(new)
    for one in (study, new):
        found = Study.open(one.root)
        assert found.dataset.encoding["conditions"] == names
    np.testing.assert_array_equal(
        read_stacked_arrays(found, "train")["class_labels"],
        read_stacked_arrays(study, "train")["class_labels"],
    )
    assert found.table("test")["class"].tolist()[:3] == ["right", "left", "right"]


def test_the_verb(squares_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = str(tmp_path / "new")
    arguments = ["generate", str(squares_study.root), new, "--count", "2", "--steps", "4"]
    assert main([*arguments, "--frames", "2"]) == 0
    assert (
        f"Each of 2 checkpoints made 2 pictures. To attribute them, run: dataloupe build {new}"
        in (capsys.readouterr().out)
    )
    assert main([*arguments, "--frames", "2"]) != 0
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"seed": -1}, {"steps": 51}, {"steps": 4}, {"frames": 0}], ids=str
)
def test_numbers_out_of_range(
    options: dict[str, int], squares_study: Study, tmp_path: Path
) -> None:
    with pytest.raises(DataloupeError, match="1 to 50 steps"):
        generate(squares_study, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_what_it_needs(small_study: Study, squares_study: Study, tmp_path: Path) -> None:
    with pytest.raises(MissingCapability, match="image-classification make no examples"):
        generate(small_study, tmp_path / "new")
    with pytest.raises(StoreError, match="lacks trained checkpoints of unet"):
        generate(diffusion.squares_study(tmp_path / "unbuilt"), tmp_path / "new")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "study.toml").write_text("")
    with pytest.raises(SpecError, match="already exists"):
        generate(squares_study, tmp_path / "taken", count=1, steps=2, frames=1)
