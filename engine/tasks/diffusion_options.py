"""`[task]` of a study of diffusion, and what it comes to.

A folder of diffusers was trained with a noising process, which its scheduler describes, on pictures
of some size, with classes or without. That is taken where the study says nothing of it. Importing
this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from engine.models.hf_folder import DIFFUSERS, find_folder, name_of, read_config, read_scheduler
from engine.store import fingerprint_of
from engine.store.errors import SpecError
from engine.store.spec import AlgorithmSpec
from engine.tasks import picture_options

Schedule = Literal["cosine", "linear", "scaled-linear"]
Prediction = Literal["v", "epsilon", "picture"]
Beta = Annotated[float, Field(gt=0, lt=1)]
NONE = "none"
_SCHEDULES = {"squaredcos_cap_v2": "cosine", "linear": "linear", "scaled_linear": "scaled-linear"}
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "picture"}
"""Names in diffusers → ours."""
_COLORS = {1: "grey", 3: "rgb"}
_SAYS_ALL = ("timesteps", "schedule", "prediction")
"""Keys that describe a process where a folder has no scheduler."""


class Options(picture_options.Options):
    """`[task]` of a study of diffusion."""

    mean: picture_options.Statistic = 0.5
    std: picture_options.Statistic = 0.5
    """Pixels are between −1 and 1, which samples are cut to."""
    class_column: Annotated[str, Field(min_length=1)] = "auto"
    """Column of the classes that pictures are made by. `auto` takes one with a usual name such as
    `label`, if there is one; `none` makes pictures without classes."""
    timesteps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """Steps from a picture to noise."""
    schedule: Schedule = "cosine"
    """How fast noise grows with them."""
    betas: tuple[Beta, Beta] | None = None
    """The first and the last β of a linear schedule; None: as Ho et al. (2020)."""
    prediction: Prediction = "v"
    """What models predict: `epsilon`, the noise; `v`, a mixture of noise and picture; or the
    `picture`."""
    draws: Annotated[int, Field(ge=1, le=1000)] = 10
    """At how many timesteps outputs measure an example, spread over all of them. More are more
    exact and take longer."""
    _from_folder: tuple[str, ...] = PrivateAttr(default=())
    """What was taken from a model's folder, as sentences."""
    _expected: tuple[str, ...] = PrivateAttr(default=())
    """Digest of what that folder says."""

    def told(self) -> dict[str, list[str]]:
        """What an encoding keeps of a model's folder; nothing where there is none."""
        if not self._expected:
            return {}
        return {"from_folder": list(self._from_folder), "expected": list(self._expected)}


def settle(options: Options, algorithms: Mapping[str, AlgorithmSpec], study: Path) -> Options:
    """The options with what the folder of the study's first model of diffusers says.

    Raises:
        SpecError: The folder is missing, or its process cannot be used.
    """
    expected = _expected(algorithms, study, options.model_fields_set)
    changes = {key: v for key, v in expected.items() if key not in options.model_fields_set}
    settled = options.model_copy(update=changes)
    settled._expected = tuple(_digest(expected))
    if changes:
        shown = ", ".join(f"{key} = {value}" for key, value in changes.items())
        settled._from_folder = (f"From the folder of the model: {shown}.",)
    return settled


def outside(
    keys: Mapping[str, Any],
    algorithms: Mapping[str, AlgorithmSpec],
    study: Path,
    known: Mapping[str, Any] | None,
) -> list[str]:
    """What the encoding depends on beside the keys of `[task]`: see `text_options.outside`."""
    try:
        return _digest(_expected(algorithms, study, keys))
    except SpecError:
        if known is None:
            raise
        return list(known.get("expected", []))


def computed(encoding: Mapping[str, Any]) -> list[str]:
    """Nothing."""
    return []


def _digest(expected: Mapping[str, Any]) -> list[str]:
    return [fingerprint_of("expected diffusion", expected)] if expected else []


def _expected(
    algorithms: Mapping[str, AlgorithmSpec], study: Path, given: Mapping[str, Any] | set[str]
) -> dict[str, Any]:
    """Keys of `[task]` as the first folder of diffusers has them; empty if there is none.

    Args:
        given: Keys that the study sets.
    """
    names = [name_of(one.architecture, DIFFUSERS) for one in algorithms.values()]
    name = next((name for name in names if name), None)
    if name is None:
        return {}
    folder = find_folder(name, study, DIFFUSERS)
    config, scheduler = read_config(folder, DIFFUSERS), read_scheduler(folder)
    found: dict[str, Any] = {}
    size = config.get("sample_size")
    if isinstance(size, int) and size > 0:
        found["image_size"] = size
    elif isinstance(size, list) and len(size) == 2 and all(type(one) is int for one in size):
        found["image_size"] = tuple(size)
    if (color := _COLORS.get(config.get("in_channels", 3))) is not None:
        found["color"] = color
    if config.get("num_class_embeds") is None:
        found["class_column"] = NONE
    if all(key in given for key in _SAYS_ALL):
        return found
    if scheduler is None:
        raise SpecError(
            f"{folder} has no scheduler_config.json, which says how noise grows and what the model "
            "predicts. Save the scheduler there, or set timesteps, schedule and prediction under "
            "[task]."
        )
    return found | _process(scheduler, folder)


def _process(scheduler: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`timesteps`, `schedule`, `betas` and `prediction` of a scheduler's config.

    Raises:
        SpecError: It is another kind of process.
    """
    schedule = scheduler.get("beta_schedule", "linear")
    prediction = scheduler.get("prediction_type", "epsilon")
    odd = [key for key in ("trained_betas", "rescale_betas_zero_snr") if scheduler.get(key)]
    if schedule not in _SCHEDULES or prediction not in _PREDICTIONS or odd:
        what = odd[0] if odd else f"{schedule} with {prediction}"
        raise SpecError(
            f"the scheduler of {folder} has a process that is not supported ({what}): schedules "
            f"are {', '.join(_SCHEDULES)}, predictions {', '.join(_PREDICTIONS)}."
        )
    found: dict[str, Any] = {
        "timesteps": scheduler.get("num_train_timesteps", 1000),
        "schedule": _SCHEDULES[schedule],
        "prediction": _PREDICTIONS[prediction],
    }
    if schedule != "squaredcos_cap_v2":
        found["betas"] = (scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02))
    numbers = [found["timesteps"], *found.get("betas", ())]
    if type(numbers[0]) is not int or numbers[0] < 2 or not all(_is_beta(b) for b in numbers[1:]):
        raise SpecError(
            f"the scheduler of {folder} is damaged: num_train_timesteps, beta_start and beta_end "
            f"are {', '.join(map(str, numbers))}. Copy it again."
        )
    return found


def _is_beta(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < 1
