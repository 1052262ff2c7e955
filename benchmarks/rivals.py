"""Other attribution methods: one function each, from a trained model to a matrix of scores.

Each returns `[n_test, n_train]`, positive for supporting. `RIVALS` states whether the average over
checkpoints must still be multiplied by the out-to-loss gradient Q̄ (TRAK's product of means).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

from benchmarks.workload import batches_of, task
from engine.attribution.trak.gradients import per_example_gradients
from engine.attribution.trak.make_plan import plan_gradients
from engine.tasks.margin import margin

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH_SIZE = 128
PROJ_DIM = 2048


class Rival(NamedTuple):
    """A method to compare with.

    Attributes:
        scores: (model in eval mode, number of the checkpoint) → `[n_test, n_train]`.
        times_q: Whether the mean over checkpoints must be multiplied by Q̄.
        settings: Version and settings, for the reader of the results.
    """

    scores: Callable[[nn.Module, int], Tensor]
    times_q: bool
    settings: str


# --- traker --------------------------------------------------------------------------------------


def make_traker(
    model: nn.Module,
    n_train: int,
    folder: str,
    task: Any = "image_classification",
    parameters: list[str] | None = None,
    proj_dim: int = PROJ_DIM,
) -> Any:
    """A TRAKer at its defaults: λ = 0, its BasicProjector, proj_dim 2048.

    Only half precision is off, in traker's favor: on a CPU it takes longer and rounds more.

    Args:
        parameters: Names of those that gradients are taken of; None: all.
    """
    from trak import TRAKer

    return TRAKer(
        model=model,
        task=task,
        train_set_size=n_train,
        save_dir=folder,
        device="cpu",
        proj_dim=proj_dim,
        use_half_precision=False,
        grad_wrt=parameters,
        logging_level=logging.WARNING,
    )


def traker(model: nn.Module, number: int) -> Tensor:
    """traker 0.3.2 from featurizing to scores, without Q (which it multiplies in at the end)."""
    train, test = (
        [[batch["input"], batch["label"]] for batch in batches_of(split, BATCH_SIZE)()]
        for split in ("train", "test")
    )
    kind = "image_classification"
    return traker_scores(model, model.state_dict(), number, train, test, kind, proj_dim=PROJ_DIM)


def traker_scores(
    model: nn.Module,
    state: dict[str, Tensor],
    number: int,
    train: list[list[Tensor]],
    test: list[list[Tensor]],
    task: Any,
    parameters: list[str] | None = None,
    proj_dim: int = PROJ_DIM,
) -> Tensor:
    """Scores `[n_test, n_train]` by traker, before multiplication by Q.

    Args:
        state: The model's weights, by the names that the model has for them.
        train, test: Batches of a model's inputs and, last, the labels.
        task: traker's name of it, or a model output of its kind.
        parameters, proj_dim: As in `make_traker`.
    """
    n_train, n_test = (sum(len(batch[-1]) for batch in batches) for batches in (train, test))
    with tempfile.TemporaryDirectory() as folder:
        tool = make_traker(model, n_train, folder, task, parameters, proj_dim)
        tool.load_checkpoint(state, model_id=number)
        for batch in train:
            tool.featurize(batch, num_samples=len(batch[-1]))
        tool.finalize_features()
        tool.start_scoring_checkpoint("test", state, number, n_test)
        for batch in test:
            tool.score(batch, num_samples=len(batch[-1]))
        kept = tool.saver.current_store
        scores = torch.zeros(n_train, n_test)
        tool.score_computer.get_scores(
            torch.as_tensor(kept["features"]), torch.as_tensor(kept["test_grads"]), scores
        )
    return scores.T


# --- kronfluence ---------------------------------------------------------------------------------


def ekfac(model: nn.Module, number: int) -> Tensor:
    """kronfluence 1.0.1: influence functions with EK-FAC, at its defaults."""
    return ekfac_scores(model, number, _tensors("train"), _tensors("test"), (256, 250))


def ekfac_scores(
    model: nn.Module,
    number: int,
    train: torch.utils.data.Dataset[Any],
    test: torch.utils.data.Dataset[Any],
    batch_sizes: tuple[int, int],
    mask: Callable[[Any], Tensor | None] = lambda batch: None,
    layers: list[str] | None = None,
) -> Tensor:
    """Scores `[n_test, n_train]` by kronfluence's EK-FAC, of the margin.

    Args:
        model: Takes what an example has before its label, and gives logits.
        train, test: Examples: a model's inputs and, last, the label.
        batch_sizes: Of training and of test examples.
        mask: The attention mask of a batch; None where there is none.
        layers: Names of the linear layers whose weights count; None: all.
    """
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.task import Task

    class Margins(Task):  # type: ignore[misc]
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            *inputs, labels = batch
            logits = model(*inputs)
            if sample:
                labels = torch.multinomial(logits.detach().softmax(1), 1).flatten()
            return F.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            *inputs, labels = batch
            return -margin(model(*inputs), labels).sum()

        def get_influence_tracked_modules(self) -> list[str] | None:
            return layers

        def get_attention_mask(self, batch: Any) -> Tensor | None:
            return mask(batch)

    examples = Margins()
    torch.manual_seed(number)  # kronfluence samples labels for the Fisher matrix
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer(
            analysis_name="benchmark",
            model=prepare_model(model, examples),
            task=examples,
            cpu=True,
            disable_tqdm=True,
            log_level=logging.WARNING,
            output_dir=folder,
        )
        analyzer.fit_all_factors("ekfac", train, per_device_batch_size=batch_sizes[0])
        analyzer.compute_pairwise_scores(
            "scores",
            "ekfac",
            query_dataset=test,
            train_dataset=train,
            per_device_query_batch_size=batch_sizes[1],
            per_device_train_batch_size=batch_sizes[0],
        )
        scores: Tensor = analyzer.load_pairwise_scores("scores")["all_modules"]
    return scores


def _tensors(split: Any) -> torch.utils.data.TensorDataset:
    batches = list(batches_of(split, 1000)())
    return torch.utils.data.TensorDataset(
        *(torch.cat([batch[name] for batch in batches]) for name in ("input", "label"))
    )


# --- plain baselines -----------------------------------------------------------------------------


def gradient_dot(model: nn.Module, number: int) -> Tensor:
    """∇f(x) · ∇f(z), exactly; times Q it is the gradient of z's loss (TracIn at one checkpoint)."""
    plan = plan_gradients(model, task().model_output, next(batches_of("train")()))

    def gradients(batch: dict[str, Tensor]) -> Tensor:
        found = per_example_gradients(model, task().model_output, batch, plan)
        return torch.cat([gradient.flatten(1) for gradient in found.values()], 1)

    tests = torch.cat([gradients(batch) for batch in batches_of("test")()])
    return torch.cat([tests @ gradients(batch).T for batch in batches_of("train")()], 1)


@torch.no_grad()
def embedding_cosine(model: nn.Module, number: int) -> Tensor:
    """Cosine similarity of the penultimate features."""

    def embeddings(split: Any) -> Tensor:
        found = [model.embed(batch["input"]) for batch in batches_of(split)()]  # type: ignore[operator]
        return F.normalize(torch.cat(found))

    return embeddings("test") @ embeddings("train").T


RIVALS = {
    "traker": Rival(
        traker, True, "0.3.2, BasicProjector, proj_dim 2048, batch 128, λ = 0; float32, not float16"
    ),
    "kronfluence": Rival(ekfac, False, "1.0.1, EK-FAC at its defaults"),
    "gradient_dot": Rival(gradient_dot, True, "exact gradients"),
    "embedding": Rival(embedding_cosine, False, "cosine of penultimate features"),
}
