"""Folders of diffusers as people have them: read right, or refused in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import Study
from engine.attribution.trak.gradients import per_example_gradients
from engine.attribution.trak.make_plan import plan_gradients
from engine.build.generating import generate
from engine.build.models import load_checkpoint
from engine.cli.main import main
from engine.models import build_model
from engine.models.diffusers_zoo import diffusers
from engine.store.spec import AlgorithmSpec
from engine.tasks import load_task
from engine.tasks.context import bind
from engine.tasks.diffusion_options import Options, settle
from engine.tasks.noising import make_process
from engine.training.pretrained_unets import load_trained_unet
from tests.builders.diffusion import write_squares
from tests.builders.tiny_unet import write_tiny_unet
from tests.tasks.test_diffusion import ENCODING

pytest.importorskip("diffusers")

WITHOUT = {**ENCODING, "conditions": []}
WITHOUT["inputs"] = {k: v for k, v in ENCODING["inputs"].items() if k != "class_labels"}


@pytest.fixture(scope="module")
def tiny_unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_unet(tmp_path_factory.mktemp("unet"))


@pytest.fixture
def study(tmp_path: Path, tiny_unet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder with pictures and a copy of the tiny U-Net; any download would fail."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shutil.copytree(tiny_unet, tmp_path / "unet")
    write_squares(tmp_path)
    return tmp_path


def spec(algorithm: str = "", task: str = "", name: str = "unet") -> str:
    return (
        'name = "Squares"\n[data]\nsource = "squares.npz"\n[task]\nname = "diffusion"\n'
        f'draws = 2\n{task}\n[algorithms.own]\narchitecture = "diffusers:{name}"\n'
        f'optimizer = "adamw"\nlearning_rate = 1e-3\nepochs = 1\nbatch_size = 32\n'
        f"checkpoints = 1\n{algorithm}\n"
    )


TRAINED = 'weights = ["unet"]'


def of_trained(task: str = "") -> str:
    """Without a recipe."""
    return spec(TRAINED, task).replace("epochs = 1\n", "")


# --- read ----------------------------------------------------------------------------------------


def a_batch(encoding: dict[str, Any], n: int = 4) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    raw = {
        "input": torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8),
        "class_labels": torch.arange(n) % 2,
        "key": torch.arange(n) * 999,
    }
    return load_task("diffusion").prepare(raw, encoding)


def read(folder: Path, encoding: dict[str, Any]) -> torch.nn.Module:
    model = build_model(f"diffusers:{folder}", {}, encoding, 1, seed=5)
    load_trained_unet(folder, model, encoding["conditions"])
    return model


@pytest.mark.parametrize("pipeline", [True, False], ids=["pipeline", "model alone"])
@pytest.mark.parametrize("classes", [True, False], ids=["by class", "without classes"])
def test_it_predicts_what_diffusers_predicts(pipeline: bool, classes: bool, tmp_path: Path) -> None:
    known = {} if classes else {"num_class_embeds": None}
    folder = write_tiny_unet(tmp_path / "own", 3, pipeline, **known)
    part = folder / "unet" if pipeline else folder
    reference = diffusers("a test").UNet2DModel.from_pretrained(part).eval()
    model = read(folder, ENCODING if classes else WITHOUT)
    sample, timestep = torch.randn(3, 1, 8, 8), torch.tensor([0, 17, 49])
    told = {"class_labels": torch.tensor([1, 0, 1])} if classes else {}
    with torch.no_grad():
        found = model(sample=sample, timestep=timestep, **told).sample
        wanted = reference(sample, timestep, **told).sample
        embedded, answer = model.embed_and_answer(sample=sample, timestep=timestep, **told)  # type: ignore[operator]
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(answer.sample, wanted)
    assert embedded.shape == (3, 16)


def test_features_are_those_of_dense_gradients(tiny_unet: Path) -> None:
    task = load_task("diffusion")
    assert task.context is not None
    output = bind(task, task.context(torch.nn.Identity(), {}, ENCODING, 3)).model_output
    model, batch = read(tiny_unet, ENCODING), a_batch(ENCODING)
    parameters = dict(model.named_parameters())
    wanted = [
        torch.autograd.grad(output(model, batch)[row], list(parameters.values()))
        for row in range(4)
    ]
    found = per_example_gradients(model, output, batch, plan_gradients(model, output, batch))
    for place, name in enumerate(parameters):
        each = torch.stack([row[place] for row in wanted])
        torch.testing.assert_close(found[name], each, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_its_scheduler_is_the_process(schedule: str, prediction: str, tiny_unet: Path) -> None:
    kept = {"beta_start": 0.002, "beta_end": 0.05, "beta_schedule": schedule}
    scheduler = diffusers("a test").DDPMScheduler(60, prediction_type=prediction, **kept)
    folder = tiny_unet.parent / f"{schedule}-{prediction}"
    shutil.copytree(tiny_unet, folder, dirs_exist_ok=True)
    scheduler.save_pretrained(folder / "scheduler")
    algorithms = {"own": AlgorithmSpec(architecture=f"diffusers:{folder}")}
    options = settle(Options(), algorithms, Path())
    assert (options.timesteps, options.image_size, options.color) == (60, 8, "grey")
    process = make_process(options.timesteps, options.schedule, options.prediction, options.betas)
    picture, noise = torch.randn(2, 3, 1, 4, 4).unbind(0)
    step = torch.tensor([0, 20, 59])
    here = process.at(step)
    noisy = scheduler.add_noise(picture, noise, step)
    torch.testing.assert_close(here.noisy(picture, noise), noisy, rtol=1e-4, atol=1e-5)
    target = {
        "epsilon": noise,
        "sample": picture,
        "v_prediction": scheduler.get_velocity(picture, noise, step),
    }[prediction]
    torch.testing.assert_close(here.target(picture, noise), target, rtol=1e-4, atol=1e-5)


def test_what_the_study_says_stands_before_the_folder(tiny_unet: Path) -> None:
    algorithms = {"own": AlgorithmSpec(architecture=f"diffusers:{tiny_unet}")}
    options = settle(Options(timesteps=30, prediction="v"), algorithms, Path())
    assert (options.timesteps, options.prediction, options.schedule) == (30, "v", "linear")
    assert options.betas == (0.002, 0.3)


def test_a_trained_folder_is_attributed_and_makes_pictures(study: Path) -> None:
    (study / "study.toml").write_text(spec(TRAINED).replace("diffusers:unet", "diffusers:./unet"))
    one = Study.open(study)
    one.build("cpu", workers=0)
    encoding = one.dataset.encoding
    assert (encoding["timesteps"], encoding["schedule"]) == (50, "linear")
    assert "From the folder of the model: image_size = 8" in " ".join(one.dataset.notes)
    assert np.isfinite(one.scores([0], "own", "trak")).all()
    new = generate(Study.open(study), study / "new", count=2, steps=3, frames=1)
    Study.open(new.root).build("cpu", workers=0)
    assert (Study.open(new.root).table("test")["origin"] == "made").sum() == 2


def test_a_built_study_is_read_without_its_folder(study: Path) -> None:
    (study / "study.toml").write_text(spec())
    one = Study.open(study)
    one.build("cpu", workers=0)
    shutil.rmtree(study / "unet")
    load_checkpoint(Study.open(study), "own", 0, "cpu")
    one = Study.open(study)
    one.build("cpu", workers=0)
    assert one.explain("test-0").supporting


# --- refused -------------------------------------------------------------------------------------


def changed(file: str, **changes: Any) -> Callable[[Path], None]:
    """Change keys of a JSON file in the folder; None removes one."""

    def change(study: Path) -> None:
        path = study / "unet" / file
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return change


def removed(*files: str) -> Callable[[Path], None]:
    def remove(study: Path) -> None:
        for file in files:
            (study / "unet" / file).unlink()

    return remove


def state(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def rewrite(study: Path) -> None:
        path = study / "unet" / WEIGHTS
        content = load_file(path)
        change(content)
        save_file(content, path, {"format": "pt"})

    return rewrite


CONFIG, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
NOTHING: Callable[[Path], None] = lambda study: None  # noqa: E731
REFUSED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no config": (removed(CONFIG), spec(), "has no config.json"),
    "a config that is cut short": (
        lambda study: os.truncate(study / "unet" / CONFIG, 20),
        spec(),
        "is damaged: it is not JSON",
    ),
    "a config of another library": (
        changed(CONFIG, _class_name=None, model_type="bert"),
        spec(),
        "names no _class_name",
    ),
    "code of its own": (changed(CONFIG, auto_map={"a": "b"}), spec(), "which is never run"),
    "a model with texts": (
        changed(CONFIG, _class_name="UNet2DConditionModel"),
        spec(),
        "is a UNet2DConditionModel",
    ),
    "a key of no U-Net": (changed(CONFIG, nonesuch=3), spec(), "its config.json cannot be used"),
    "colors": (changed(CONFIG, in_channels=3), spec("", 'color = "grey"'), "takes 3 channels"),
    "variances": (changed(CONFIG, out_channels=2), spec(), "predicts the variance"),
    "levels of noise": (
        changed(CONFIG, time_embedding_type="fourier"),
        spec(),
        "time_embedding_type = fourier",
    ),
    "classes as vectors": (
        changed(CONFIG, class_embed_type="identity"),
        spec(),
        "takes classes as 'identity'",
    ),
    "other classes": (changed(CONFIG, num_class_embeds=5), spec(), "makes pictures of 5 classes"),
    "no classes": (
        changed(CONFIG, num_class_embeds=None),
        spec("", 'class_column = "label"'),
        'set class_column = "none"',
    ),
    "no scheduler": (removed(SCHEDULER), spec(), "has no scheduler_config.json"),
    "another schedule": (
        changed(SCHEDULER, beta_schedule="sigmoid"),
        spec(),
        r"not supported \(sigmoid with epsilon\)",
    ),
    "β of its own": (changed(SCHEDULER, trained_betas=[0.1]), spec(), r"\(trained_betas\)"),
    "β that is none": (changed(SCHEDULER, beta_end=7.0), spec(), "the scheduler of .* is damaged"),
    "only a pickle": (
        lambda study: (study / "unet" / WEIGHTS).rename(
            study / "unet" / "unet" / "diffusion_pytorch_model.bin"
        ),
        spec(),
        "a pickle, which could run code",
    ),
    "no weights": (removed(WEIGHTS), of_trained(), "has no weights"),
    "weights that are cut short": (
        lambda study: os.truncate(study / "unet" / WEIGHTS, 3000),
        of_trained(),
        "cannot be read",
    ),
    "weights that lack a layer": (
        state(lambda content: content.pop("conv_in.weight")),
        of_trained(),
        "does not fit: conv_in.weight",
    ),
    "weights of another shape": (
        state(lambda content: content.update({"conv_in.bias": torch.zeros(3)})),
        of_trained(),
        "does not fit: conv_in.bias",
    ),
    "weights with NaN": (
        state(lambda content: content["conv_in.bias"].fill_(torch.nan)),
        of_trained(),
        "'conv_in.bias' holds NaN",
    ),
    "a folder that is missing": (NOTHING, spec(name="nowhere"), "nowhere does not exist"),
    "a name of the hub": (NOTHING, spec(name="google/ddpm-cifar10-32"), "32 does not exist"),
    "another task": (
        NOTHING,
        spec().replace('"diffusion"\ndraws = 2', '"image-classification"'),
        "is for pictures that are denoised",
    ),
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, text, pattern = REFUSED[case]
    change(study)
    (study / "study.toml").write_text(text)
    assert main(["build", str(study), "--workers", "0"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(pattern, line), line
