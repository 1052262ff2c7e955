"""Pictures with captions: loss, outputs, negatives, retrieval, and exact gradients."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from engine.attribution.trak.gradients import per_example_gradients
from engine.attribution.trak.make_plan import plan_gradients
from engine.models import build_model
from engine.models.pairs import pairs_of
from engine.models.transformers_zoo import build_transformer
from engine.store.errors import DataError, SpecError
from engine.tasks import contrastive
from engine.tasks.context import bind
from engine.tasks.contrastive import draw_negatives
from engine.tasks.image_text import TASK, prepare
from engine.tasks.outcomes import RETRIEVAL
from tests.builders.exact_gradients import autograd_rows

N, TOKENS, LONGEST, SIDE = 24, 40, 6, 16
ENCODING: dict[str, Any] = {
    "answer": "pairs",
    "shape": [3, SIDE, SIDE],
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "max_tokens": LONGEST,
    "token_ids": TOKENS,
    "padding": 0,
    "negatives": 15,
    "gallery": 10,
    "inputs": {
        "pixel_values": {"shape": [3, SIDE, SIDE], "dtype": "float32", "start": [], "rest": 0.0},
        "input_ids": {"shape": [LONGEST], "dtype": "int64", "start": [1, 2], "rest": 0},
        "attention_mask": {"shape": [LONGEST], "dtype": "int64", "start": [1, 1], "rest": 0},
    },
}


def arrays(seed: int = 0, n: int = N) -> dict[str, np.ndarray]:
    """Encoded pairs; 0 and 1 have the same caption, 2 and 3 the same picture."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, LONGEST + 1, n).astype(np.int32)
    ids = generator.integers(3, TOKENS, (n, LONGEST)).astype(np.int32)
    ids[:, 0] = 1
    ids[np.arange(n), lengths - 1] = 2  # the token that ends a caption
    ids[np.arange(LONGEST) >= lengths[:, None]] = 0
    keys = np.arange(n) + 1000 * seed
    captions = keys.copy()
    ids[1], lengths[1], captions[1] = ids[0], lengths[0], captions[0]
    pictures = generator.integers(0, 256, (n, 3, SIDE, SIDE), dtype=np.uint8)
    pictures[3], keys[3] = pictures[2], keys[2]
    return {
        "input": pictures,
        "input_ids": ids,
        "length": lengths,
        "picture_key": keys,
        "caption_key": captions,
        "label": np.zeros(n, np.int64),
    }


def clip() -> nn.Module:
    sides = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 8,
    }
    words = {"vocab_size": TOKENS, "max_position_embeddings": 12}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = hf.CLIPConfig(
        text_config={**sides, **words, **special},
        vision_config={**sides, "image_size": SIDE, "patch_size": 8},
        projection_dim=8,
    )
    return build_transformer(config.to_dict(), ENCODING, 1, "clip").eval()


def towers(**options: Any) -> nn.Module:
    small = {"width": 4, "caption_width": 8, "dimensions": 6, **options}
    return build_model("two-towers", small, ENCODING, 1, seed=1)


MODELS = {
    "mean of words": towers,
    "transformer": lambda: towers(caption="transformer", heads=2),
    "clip": clip,
}


def batch_of(found: Mapping[str, np.ndarray], rows: slice) -> dict[str, Tensor]:
    raw = {name: torch.from_numpy(array[rows].copy()) for name, array in found.items()}
    return prepare(raw, ENCODING)


def bound(model: nn.Module) -> Any:
    context = contrastive.negatives(prepare)(model, arrays(), ENCODING, 7)
    shown = contrastive.gallery(prepare)(model, arrays(1), ENCODING)
    return bind(TASK, {**context, **shown})


def shaken(model: nn.Module) -> nn.Module:
    """The model with other numbers everywhere: no parameter is 0 or 1, or 1 for all examples."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
            else:
                parameter.fill_(1.3)
    return model.eval()


@pytest.mark.input_case
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_both_towers_agree_with_autograd(name: str) -> None:
    """Of all three outputs, with a context, the learned temperature included."""
    model = shaken(MODELS[name]())
    task = bound(model)
    batch = batch_of(arrays(), slice(0, 5))
    precise = copy.deepcopy(model).double()
    precisely = {**batch, "pixel_values": batch["pixel_values"].double()}
    for output in task.outputs:
        plan = plan_gradients(model, output.value, batch)
        found = per_example_gradients(model, output.value, batch, plan)
        wanted = autograd_rows(precise, output.value, precisely)
        assert list(found) == list(wanted)
        assert not plan.untapped
        for parameter, gradient in found.items():
            largest = max(wanted[parameter].abs().max().item(), 3e-2)
            error = (gradient - wanted[parameter]).abs().max().item()
            assert error <= 2e-5 * largest, (output.name, parameter)
    scale = "logit_scale" if name == "clip" else "temperature.logarithm"
    assert (wanted[scale].abs() > 1e-3).all()


def alike(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which pairs have the same picture or caption, bool `[n, n]`."""
    picture, caption = (found[f"{part}_key"] for part in ("picture", "caption"))
    same: np.ndarray = (picture[:, None] == picture) | (caption[:, None] == caption)
    return same


def plain_log_odds(side: Tensor, own: Tensor, others: Tensor, scale: float) -> float:
    """log p / (1 − p) of the own one among it and the others, written out."""
    logits = [scale * float(side @ one) for one in (own, *others)]
    p = np.exp(logits[0]) / np.exp(logits).sum()
    return float(np.log(p / (1 - p)))


def test_outputs_are_log_odds_against_the_negatives() -> None:
    """The pair itself is no negative, nor is a pair with the same picture or caption."""
    model = shaken(towers())
    task, found = bound(model), arrays()
    rows = draw_negatives(N, ENCODING["negatives"], 7)
    batch, every = batch_of(found, slice(0, 5)), batch_of(found, slice(0, N))
    with torch.no_grad():
        one = pairs_of(model(every["pixel_values"], every["input_ids"], every["attention_mask"]))
        outputs = {output.name: output.value(model, batch) for output in task.outputs}
        weights = {output.name: output.weight(model, batch) for output in task.outputs}
    for i in range(5):
        unlike = [j for j in rows if not alike(found)[i, j]]
        scale = float(one.scale)
        sides = {
            "picture-side": (one.pictures[i], one.captions[i], one.captions[unlike]),
            "caption-side": (one.captions[i], one.pictures[i], one.pictures[unlike]),
        }
        wanted = {name: plain_log_odds(*side, scale) for name, side in sides.items()}
        for name, value in wanted.items():
            assert float(outputs[name][i]) == pytest.approx(value, abs=1e-4)
            assert float(weights[name][i]) == pytest.approx(1 / (1 + np.exp(value)), abs=1e-4)
        assert float(outputs["alignment"][i]) == pytest.approx(sum(wanted.values()), abs=1e-4)
        mean = sum(1 / (1 + np.exp(value)) for value in wanted.values()) / 2
        assert float(weights["alignment"][i]) == pytest.approx(mean, abs=1e-4)


def test_the_loss_is_the_mean_cross_entropy_of_both_directions() -> None:
    model = shaken(towers())
    batch = batch_of(arrays(), slice(3, 9))  # nothing occurs twice
    with torch.no_grad():
        losses = contrastive.loss(model, batch, 0.0)
        one = contrastive.pairs(model, batch)
    logits = one.scale * one.pictures @ one.captions.T
    for i in range(6):
        both = (logits[i].softmax(0)[i].log() + logits[:, i].softmax(0)[i].log()) / 2
        assert float(losses[i]) == pytest.approx(-float(both), abs=1e-5)
    # Of four pairs, two share their caption and two their picture: neither push each other away.
    with torch.no_grad():
        losses = contrastive.loss(model, batch_of(arrays(), slice(0, 4)), 0.0)
        one = contrastive.pairs(model, batch_of(arrays(), slice(0, 4)))
    logits = one.scale * one.pictures @ one.captions.T
    for i, others in enumerate(([0, 2, 3], [1, 2, 3], [0, 1, 2], [0, 1, 3])):
        own = others.index(i)
        sides = (logits[i, others], logits[others, i])
        both = sum(float(side.softmax(0)[own].log()) for side in sides) / 2
        assert float(losses[i]) == pytest.approx(-both, abs=1e-5)
    with pytest.raises(SpecError, match="label_smoothing"):
        contrastive.loss(model, batch, 0.1)


def test_negatives_are_drawn_uniformly() -> None:
    """A chi-squared test: traker draws row i in proportion to i, which fails it by far."""
    n, count, draws = 60, 12, 2_000
    often = np.zeros(n)
    for seed in range(draws):
        rows = draw_negatives(n, count, seed)
        assert len(np.unique(rows)) == count
        often[rows] += 1
    expected = draws * count / n
    statistic = ((often - expected) ** 2).sum() / (expected * (1 - count / n))
    assert statistic < 110  # 99.99 % quantile for 59 degrees of freedom
    assert len(draw_negatives(n, 100, 0)) == n
    np.testing.assert_array_equal(draw_negatives(n, count, 3), draw_negatives(n, count, 3))


def test_retrieval_is_right_where_both_find_each_other_first() -> None:
    model = shaken(towers())
    task, found = bound(model), arrays(1)
    with torch.no_grad():
        record = task.record(model, batch_of(found, slice(0, N)))
        every = contrastive.pairs(model, batch_of(found, slice(0, N)))
    retrieval = record[RETRIEVAL.record].numpy()
    cosines = (every.pictures @ every.captions.T).numpy()
    table = task.summarize({RETRIEVAL.record: retrieval}, found, [])
    assert retrieval.shape == (N, 2, 1 + ENCODING["gallery"])
    for i in range(N):
        shown = [j for j in range(10) if not alike(found)[i, j]]
        caption_rank = 1 + sum(cosines[i, j] > cosines[i, i] for j in shown)
        picture_rank = 1 + sum(cosines[j, i] > cosines[i, i] for j in shown)
        assert (table["caption_rank"][i], table["picture_rank"][i]) == (caption_rank, picture_rank)
        assert table["correct"][i] == (caption_rank == picture_rank == 1)
        if caption_rank > 1:
            best = max(shown, key=lambda j: cosines[i, j])
            assert table["predicted"][i] == f"the caption of test pair {best}"
        assert table["similarity"][i] == pytest.approx(cosines[i, i], abs=1e-6)
    answers = RETRIEVAL.answers(retrieval)
    rivals = RETRIEVAL.rivals(retrieval, np.zeros(N, int))
    assert (answers[answers != 0] != 0).all()
    assert (rivals != 0).all()
    wrong = (answers != 0) & (table["caption_rank"] > 1) & (table["picture_rank"] == 1)
    np.testing.assert_array_equal(rivals[wrong], answers[wrong])


WRONG_ANSWERS = {
    "logits": (lambda b: torch.zeros(2, 3), "embeddings of pictures and of captions"),
    "no scale": (lambda b: (torch.zeros(2, 3), torch.zeros(2, 3)), "inverse temperature"),
    "two widths": (
        lambda b: (torch.zeros(2, 3), torch.zeros(2, 4), torch.ones(())),
        "embeddings of one width",
    ),
    "one number each": (
        lambda b: (torch.zeros(2), torch.zeros(2), torch.ones(())),
        "embeddings of one width",
    ),
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", WRONG_ANSWERS)
def test_models_that_give_no_pairs_are_refused(case: str) -> None:
    make, message = WRONG_ANSWERS[case]
    with pytest.raises(SpecError, match=message):
        pairs_of(make(None))


def test_answers_of_other_libraries_are_read() -> None:
    pictures, captions, scale = torch.randn(2, 3), torch.randn(2, 3), torch.tensor(14.0)
    for answer in (
        (pictures, captions, scale),
        {"image_features": pictures, "text_features": captions, "logit_scale": scale},
    ):
        found = pairs_of(answer)
        torch.testing.assert_close(found.pictures, nn.functional.normalize(pictures))
        torch.testing.assert_close(found.captions, nn.functional.normalize(captions))
        assert found.scale == 14


def test_negatives_of_one_caption_are_refused() -> None:
    found = arrays()
    found["caption_key"][:] = 3
    with pytest.raises(DataError, match="same caption"):
        contrastive.negatives(prepare)(towers(), found, ENCODING, 0)
