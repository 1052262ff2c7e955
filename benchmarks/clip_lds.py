"""LDS of every method on the alignment of pairs, on the test masks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks._report import log
from benchmarks.clip_study import SIZE, folder
from benchmarks.rivals import traker_scores
from benchmarks.text_lds import gradient_cosine, rounded, scored
from engine import Study, store
from engine.attribution.scores.factors import combine
from engine.build.batches import batches_of, stored_out_to_loss
from engine.build.models import load_checkpoint
from engine.build.stages.quality import by_checkpoints
from engine.models.calling import call
from engine.models.pairs import pairs_of
from engine.store import layout
from engine.store.layout import HYBRID, SPLITS, TRAK

MOST = str(SIZE.checkpoints[-1])
OF_TRAKER = int(os.environ.get("DATALOUPE_CLIP_TRAKER", MOST))
"""Checkpoints that traker scores."""


def lds_of(study: Study) -> dict[str, Any]:
    """LDS of our methods and of baselines, with the noise ceiling: on the test masks, and of what
    was not fitted to the bank also on the masks to fit on."""
    quality, bank = study.quality(), study.bank(train=False)
    assert quality is not None
    test, more = bank.part("test"), bank.part("fit", "test")
    algorithm = next(iter(study.algorithms))
    found: dict[str, dict[str, Any]] = {
        "ours": {
            str(one.n): rounded(one.lds) for one in quality.checkpoints if one.n in SIZE.checkpoints
        },
        "ours_thresholded": {MOST: rounded(quality.methods[TRAK].lds)},
        "hybrid": {MOST: rounded(quality.methods[HYBRID].lds)},
    }
    unfitted: dict[str, dict[str, Any]] = {
        "ours": {
            str(one.n): rounded(one.lds)
            for one in by_checkpoints(study, algorithm, more)
            if one.n in SIZE.checkpoints
        },
    }
    baselines = {name: (MOST, embedding_scores(study, part)) for name, part in TOWERS.items()}
    baselines["gradient_cosine"] = "1", gradient_cosine(study, 0)
    for name, (count, scores) in baselines.items():
        found[name] = {count: scored(scores, test)}
        unfitted[name] = {count: scored(scores, more)}
    return {
        "lds": found,
        "lds_on_more_masks": unfitted,
        "lds_noise_ceiling": None if quality.ceiling is None else rounded(quality.ceiling),
        "test_masks": len(test),
        "more_masks": len(more),
    }


def _both(embeddings: np.ndarray) -> np.ndarray:
    return embeddings


def of_picture(embeddings: np.ndarray) -> np.ndarray:
    return np.split(embeddings, 2, axis=1)[0]


def of_caption(embeddings: np.ndarray) -> np.ndarray:
    return np.split(embeddings, 2, axis=1)[1]


TOWERS = {"embedding": _both, "picture_embedding": of_picture, "caption_embedding": of_caption}


def embedding_scores(study: Study, part: Callable[[np.ndarray], np.ndarray] = _both) -> np.ndarray:
    """Mean cosine of embeddings over the checkpoints, `[n_test, n_train]`."""
    algorithm = next(iter(study.algorithms))
    total = np.zeros((study.dataset.n_test, study.dataset.n_train), np.float32)
    for checkpoint in range(study.checkpoints(algorithm)):
        units = []
        for split in SPLITS:
            path = layout.outputs_file(study.root, algorithm, checkpoint, split)
            rows = part(np.array(store.read_tensors(path)["embeddings"], np.float32))
            units.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        total += units[1] @ units[0].T
    return total


# --- traker ---------------------------------------------------------------------------------------


def lds_of_traker(study: Study) -> dict[str, Any]:
    """LDS of traker 0.3.2 on the same checkpoints, as shipped and with uniform negatives.

    Both multiply by our mean Q, which is that of its paper; in its own, a pair's probability
    depends on which pairs share its batch.
    """
    bank, algorithm = study.bank(train=False), next(iter(study.algorithms))
    parts = {"lds": bank.part("test"), "lds_on_more_masks": bank.part("fit", "test")}
    found: dict[str, dict[str, dict[str, Any]]] = {key: {} for key in parts}
    for name in ("shipped", "repaired"):
        total = np.zeros((study.dataset.n_test, study.dataset.n_train), np.float32)
        q = np.zeros(study.dataset.n_train, np.float32)
        for checkpoint in range(OF_TRAKER):
            total += kept_traker(study, checkpoint, name)
            q += stored_out_to_loss(study, algorithm, checkpoint)
            count = checkpoint + 1
            if count in SIZE.checkpoints:
                tau = combine(total.copy(), count, q / count)
                for key, part in parts.items():
                    of = found[key].setdefault(f"traker_{name}", {})
                    of[str(count)] = scored(tau, part)
    return {f"{key}_of_traker": of for key, of in found.items()}


def kept_traker(study: Study, checkpoint: int, name: str) -> np.ndarray:
    """Scores of traker; they take minutes, so that they are kept."""
    q = stored_out_to_loss(study, next(iter(study.algorithms)), checkpoint)  # tells the model
    fingerprint = store.fingerprint_of("traker", name, q.tolist())
    path = folder() / "traker" / f"{name}-{checkpoint}-{fingerprint}.safetensors"
    if not path.exists():
        log(f"traker {name}, checkpoint {checkpoint}")
        output = shipped() if name == "shipped" else repaired(shipped())
        scores = traker(study, checkpoint, output).astype(np.float32)
        store.write_tensors(path, {"scores": scores}, fingerprint)
    return np.array(store.read_tensors(path)["scores"])


def shipped() -> type[Any]:
    """traker's output. Its Q has a shape that traker itself refuses, so that alone is changed."""
    from trak.modelout_functions import CLIPModelOutput

    class Shipped(CLIPModelOutput):  # type: ignore[misc]
        def get_out_to_loss_grad(self, *given: Any) -> torch.Tensor:
            found: torch.Tensor = super().get_out_to_loss_grad(*given)
            return found[:, None]

    return Shipped


def repaired(output: type[Any]) -> type[Any]:
    """traker's output with negatives that are drawn uniformly, and scaled by the temperature.

    As shipped it draws pair i in proportion to i, and leaves out the scale that the model learned.
    """
    from trak.modelout_functions import CLIPModelOutput

    class Uniform(output):  # type: ignore[misc]
        @staticmethod
        def get_output(
            model: torch.nn.Module, weights: Any, buffers: Any, image: Any, label: Any
        ) -> torch.Tensor:
            pictures, captions, scale = torch.func.functional_call(
                model,
                (weights, buffers),
                kwargs={"image": image.unsqueeze(0), "text": label.unsqueeze(0)},
            )
            kept = CLIPModelOutput
            some = torch.ones(kept.num_computed_embeddings).multinomial(kept.sim_batch_size)
            own = (pictures * captions).sum(-1, keepdim=True)
            sides = (
                (pictures @ kept.text_embeddings[some].T, captions),
                (captions @ kept.image_embeddings[some].T, pictures),
            )
            odds = [-(scale * (others - own)).logsumexp(1) for others, _ in sides]
            return sum(odds, torch.zeros(1)).sum()

    return Uniform


def traker(study: Study, checkpoint: int, output: type[Any]) -> np.ndarray:
    """Scores `[n_test, n_train]` of one checkpoint, before multiplication by Q."""
    from trak.modelout_functions import CLIPModelOutput

    model = Named(load_checkpoint(study, next(iter(study.algorithms)), checkpoint, "cpu")).eval()
    train, test = (whole_batches(study, split) for split in SPLITS)
    negatives = min(300, study.dataset.n_train)
    task = output(simulated_batch_size=negatives)
    with torch.no_grad():
        answers = [model(*batch)[:2] for batch in train]
    # Its own way to compute them needs a GPU.
    CLIPModelOutput.image_embeddings = torch.cat([pictures for pictures, _ in answers])
    CLIPModelOutput.text_embeddings = torch.cat([captions for _, captions in answers])
    CLIPModelOutput.num_computed_embeddings = study.dataset.n_train
    torch.manual_seed(checkpoint)
    scores = traker_scores(model, model.state_dict(), checkpoint, train, test, task)
    found: np.ndarray = scores.numpy()
    return found


class Named(torch.nn.Module):
    """A model of pairs that takes and gives what traker's output wants: open_clip's names, token
    ids and their mask in one tensor, and embeddings of length 1 with their scale."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, image: torch.Tensor, text: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ids, mask = text.chunk(2, dim=1)
        inputs = {"pixel_values": image, "input_ids": ids, "attention_mask": mask}
        found = pairs_of(call(self.model, inputs))
        return found.pictures, found.captions, found.scale


def whole_batches(study: Study, split: Any, size: int = 64) -> list[list[torch.Tensor]]:
    """[pictures, token ids and their mask] of all pairs."""
    return [
        [
            batch["pixel_values"].contiguous(),
            torch.cat([batch["input_ids"], batch["attention_mask"]], 1),
        ]
        for batch in batches_of(study, split, "cpu", size)()
    ]


def mean_with_interval(values: np.ndarray) -> dict[str, float]:
    """Mean with its 95 % interval, by Student's t over the values."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = float(values.mean())
    return {
        "mean": round(mean, 4),
        "low": round(mean - float(half), 4),
        "high": round(mean + float(half), 4),
    }
