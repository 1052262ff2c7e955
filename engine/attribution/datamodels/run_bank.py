"""The run bank: outputs of models that were trained on random subsets of the training set.

A *subset run* is one model trained on a random α-fraction of the training examples, its *mask*.
All subset runs of an algorithm form its run bank. Datamodels are fitted to it, and scores are
evaluated on it. This module knows arrays only; the stage `bank` trains and stores the runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.store.errors import DataError
from engine.store.spec import PARTS, Part


@dataclass(frozen=True)
class RunBank:
    """Masks and model outputs, one row per mask.

    Attributes:
        masks: bool `[m, n_train]`: whether the training example was in the mask.
        train: float32 `[m, n_train]`: model outputs on the training examples, averaged over the
            seeds of the mask; None where they were not requested or an imported bank lacks them.
        test: float32 `[m, n_test]`: the same on the test examples.
        seeds: int64 `[m]`: how many runs were averaged.
        numbers: int64 `[m]`: number of each mask, which determines the part it belongs to.
        output: Name of the model output, such as `margin`.
        source: Where an imported bank came from; None where the study trained it.
    """

    masks: np.ndarray
    train: np.ndarray | None
    test: np.ndarray
    seeds: np.ndarray
    numbers: np.ndarray
    output: str = "margin"
    source: str | None = None

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def held_out(self) -> np.ndarray:
        """Which masks belong to the validation part, where settings are chosen: bool `[m]`."""
        return np.array([PARTS[n % len(PARTS)] == "validation" for n in self.numbers], bool)

    def part(self, *names: Part) -> RunBank:
        """The masks of some parts: to fit on (`fit`), to choose settings on (`validation`), or to
        evaluate on and do nothing else (`test`)."""
        rows = np.flatnonzero([PARTS[number % len(PARTS)] in names for number in self.numbers])
        return replace(
            self,
            masks=self.masks[rows],
            train=None if self.train is None else self.train[rows],
            test=self.test[rows],
            seeds=self.seeds[rows],
            numbers=self.numbers[rows],
        )


@dataclass(frozen=True)
class BankImport:
    """Where an imported bank came from.

    Attributes:
        fingerprint: Of the files and how they were read; part of the shards' names.
        folder: Name of the folder it was read from.
        files: Name → SHA-256 of each file.
        output: Name of the model output that it holds.
        runs: Number of runs.
        masks: Number of different masks.
        alpha: Mean share of the training examples in a mask.
        train: Whether it has outputs on training examples.
        shards: Number of shards in which the study keeps it.
        notes: What a person should know about how it was read.
        dataset: Fingerprint of the data it was imported for.
    """

    fingerprint: str
    folder: str
    files: dict[str, str]
    output: str
    runs: int
    masks: int
    alpha: float
    train: bool
    shards: int
    notes: list[str]
    dataset: str


def gather(
    about: BankImport, shards: Iterable[Mapping[str, np.ndarray]], n_train: int, train: bool
) -> RunBank:
    """Put an imported bank together from its shards; runs with the same mask are averaged.

    Args:
        about: The bank's record.
        shards: Each with the `mask` bits and the mask `number` of its runs, and their outputs on
            `test` and possibly on `train`.
        n_train: Number of training examples.
        train: Also read the outputs on training examples, where there are any.
    """
    masks = np.empty((about.masks, n_train), dtype=bool)
    seeds = np.zeros(about.masks, np.int64)
    sums: dict[str, np.ndarray] = {}
    for shard in shards:
        numbers = shard["number"]
        masks[numbers] = unpack(shard["mask"], n_train)
        np.add.at(seeds, numbers, 1)
        for split in ("train", "test"):
            if split == "test" or (train and about.train):
                outputs = shard[split].astype(np.float32)
                total = sums.setdefault(
                    split, np.zeros((about.masks, outputs.shape[1]), np.float32)
                )
                np.add.at(total, numbers, outputs)
    means = {split: total / seeds[:, None].astype(np.float32) for split, total in sums.items()}
    numbers = np.arange(about.masks)
    train_outputs = means.get("train")
    return RunBank(masks, train_outputs, means["test"], seeds, numbers, about.output, about.folder)


def subset_size(n_train: int, alpha: float) -> int:
    """Number of training examples in a mask: α · n_train, rounded.

    Raises:
        DataError: Fewer than two, or all of them.
    """
    size = round(alpha * n_train)
    if size < 2:
        raise DataError(
            f"subset_runs.alpha = {alpha:g} leaves {size} of {n_train} training examples for a "
            "run, and training needs 2: raise alpha."
        )
    if size == n_train:
        raise DataError(
            f"subset_runs.alpha = {alpha:g} leaves none of {n_train} training examples out of a "
            "run, so runs would show nothing: lower alpha."
        )
    return size


def draw_mask(seed: int, number: int, n_train: int, alpha: float) -> np.ndarray:
    """Mask `number` of a study with this seed: bool `[n_train]`, `subset_size` of them True.

    Drawn from the raw bits of PCG64. NumPy promises never to change those, unlike its shuffles.
    """
    order = np.argsort(np.random.PCG64([seed, number]).random_raw(n_train), kind="stable")
    mask = np.zeros(n_train, dtype=bool)
    mask[order[: subset_size(n_train, alpha)]] = True
    return mask


def pack(mask: np.ndarray) -> np.ndarray:
    """Pack masks into bits: bool `[..., n_train]` → uint8 `[..., ceil(n_train / 8)]`."""
    return np.packbits(mask, axis=-1)


def unpack(bits: np.ndarray, n_train: int) -> np.ndarray:
    """Unpack masks from bits, the reverse of `pack`."""
    return np.unpackbits(bits, axis=-1, count=n_train).view(bool)


def output_problem(outputs: np.ndarray) -> str | None:
    """Why one run's outputs `[n]` on a split cannot be used, or None if they can."""
    finite = np.isfinite(outputs)
    if not finite.all():
        count = int(np.sum(~finite))
        verb = "is" if count == 1 else "are"
        return f"{count} of its {len(outputs)} outputs {verb} NaN or infinite"
    if len(outputs) > 1 and (outputs == outputs[0]).all():
        return f"all its {len(outputs)} outputs are the same"
    return None


def mean_of_seeds(runs: Iterable[np.ndarray]) -> np.ndarray:
    """Mean of the outputs of one mask's runs: float32, summed in float64."""
    mean: np.ndarray = np.stack(list(runs)).mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)
