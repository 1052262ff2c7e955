"""KLoM: how far unlearned models are from models retrained without the forgotten examples.

For each example, the margins of N unlearned models and of N oracles are two samples. Both are
counted in `BINS` bins of equal width, from the smallest to the largest margin of either. The last
bin is closed, so every margin counts, however far above the oracles it lies. `SMOOTHING` is added
to the shares, which are then normalized again. KLoM is the Kullback-Leibler divergence of the two
(Georgiev et al. 2024, Attribute-to-Delete, section 3). Published implementations disagree on the
direction: the default here is KL(unlearned ‖ oracle).

Equal distributions do not give 0, because N models never fill the bins equally. So compare a value
with `floor`, the KLoM of oracles against oracles, and with `ceiling`, that of disjoint samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.attribution.evaluation.quality import Measured
from engine.store.errors import DataError

Direction = Literal["unlearned-oracle", "oracle-unlearned"]
"""Which comes first: KL(unlearned ‖ oracle), or KL(oracle ‖ unlearned)."""
DIRECTION: Direction = "unlearned-oracle"
BINS = 20
SMOOTHING = 1e-5
_SPLITS = 20
_DRAWS = 1000


@dataclass(frozen=True)
class Klom:
    """KLoM of a set of examples.

    Attributes:
        mean: Over the examples, with a 95 % interval. Examples are resampled, and where halves of
            the models are compared, so are models, by a jackknife over halves: drawn with
            replacement, a model that comes twice would look like less spread.
        p95: The 95th percentile over the examples; its interval is over examples only.
        models: N, of each kind.
    """

    mean: Measured
    p95: Measured
    models: int


def klom(
    *,
    unlearned: np.ndarray,
    oracle: np.ndarray,
    direction: Direction = DIRECTION,
    bins: int = BINS,
    smoothing: float = SMOOTHING,
) -> np.ndarray:
    """KLoM of each example, in nats: float64 `[n]`.

    Args:
        unlearned: Margins of the unlearned models, `[models, n]`.
        oracle: Margins of the oracles, `[models, n]`; possibly a different number of models.
        direction: Direction of the divergence.
        bins: Number of bins of equal width between the smallest and largest margin of an example.
        smoothing: Added to every bin's share.

    Raises:
        DataError: Shapes do not match, there is no model, or a margin is not finite.
    """
    for name, margins in (("unlearned", unlearned), ("oracle", oracle)):
        if margins.ndim != 2 or not len(margins):
            raise DataError(f"KLoM takes {name} margins [models, examples], not {margins.shape}.")
        if not np.isfinite(margins).all():
            raise DataError(f"KLoM cannot compare {name} margins that are NaN or infinite.")
    if unlearned.shape[1] != oracle.shape[1]:
        raise DataError(
            f"KLoM compares the same examples, but there are margins of {unlearned.shape[1]} "
            f"examples for unlearned models and of {oracle.shape[1]} for oracles."
        )
    both = np.concatenate([unlearned, oracle]).astype(np.float64)
    low, width = both.min(axis=0), np.ptp(both, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        place = np.where(width > 0, (both - low) / width, 0)
    place = np.minimum((place * bins).astype(np.int64), bins - 1)
    p, q = (_shares(part, bins, smoothing) for part in np.split(place, [len(unlearned)]))
    if direction == "oracle-unlearned":
        p, q = q, p
    found: np.ndarray = (p * np.log(p / q)).sum(axis=0)
    return found.clip(min=0)  # rounding can make it negative for equal samples


def _shares(place: np.ndarray, bins: int, smoothing: float) -> np.ndarray:
    """Smoothed shares `[bins, n]` of bin numbers `[models, n]`."""
    models, n = place.shape
    flat = np.bincount((place * n + np.arange(n)).ravel(), minlength=bins * n)
    shares: np.ndarray = (flat.reshape(bins, n) / models + smoothing) / (1 + bins * smoothing)
    return shares


def ceiling(bins: int = BINS, smoothing: float = SMOOTHING) -> float:
    """The largest possible KLoM: all unlearned margins in one bin, all oracles' in another."""
    return math.log((1 + smoothing) / smoothing) / (1 + bins * smoothing)


def halves(models: int, splits: int = _SPLITS) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random pairs of disjoint halves of this many models; always the same ones.

    Raises:
        DataError: Fewer than two models.
    """
    if models < 2:
        raise DataError(f"KLoM's floor needs at least two models, not {models}.")
    found = []
    for split in range(splits):
        order = np.argsort(np.random.PCG64([models, split]).random_raw(models), kind="stable")
        found.append((order[: models // 2], order[models // 2 : 2 * (models // 2)]))
    return found


def floor(oracle: np.ndarray, direction: Direction = DIRECTION) -> np.ndarray:
    """KLoM of one half of the oracles against the other, for random halves: `[halves, n]`.

    A perfect method has this KLoM with half as many models. Fewer models give a higher floor.
    """
    return at_half(unlearned=oracle, oracle=oracle, direction=direction)


def at_half(
    *, unlearned: np.ndarray, oracle: np.ndarray, direction: Direction = DIRECTION
) -> np.ndarray:
    """KLoM with half of the models on each side, to be compared with `floor`: `[halves, n]`.

    Args:
        unlearned, oracle: As for `klom`, the same number of each.
    """
    return np.stack(
        [
            klom(unlearned=unlearned[first], oracle=oracle[second], direction=direction)
            for first, second in halves(len(oracle))
        ]
    )


def summary(values: np.ndarray, models: int) -> Klom:
    """Mean and 95th percentile of KLoM over examples, with intervals.

    Args:
        values: KLoM of each example, `[n]`, or for each of several halves, `[halves, n]`.
        models: On each side.
    """
    of_models = float(values.mean(axis=1).std(ddof=1)) if values.ndim == 2 else 0.0
    values = values.mean(axis=0) if values.ndim == 2 else values
    generator = np.random.Generator(np.random.PCG64(len(values)))
    drawn = values[generator.integers(len(values), size=(_DRAWS, len(values)))]
    means = drawn.mean(axis=1) + of_models * generator.standard_normal(_DRAWS)
    return Klom(
        mean=_measured(float(values.mean()), means),
        p95=_measured(float(np.quantile(values, 0.95)), np.quantile(drawn, 0.95, axis=1)),
        models=models,
    )


def _measured(value: float, drawn: np.ndarray) -> Measured:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Measured(value, float(low), float(high))


def normal_divergence(*, unlearned: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """KL(unlearned ‖ oracle) of normal distributions with the samples' mean and variance: `[n]`.

    Histograms of few models are mostly noise, so this is used to choose hyper-parameters. It is
    also bounded by `ceiling`.
    """
    mean_u, mean_o = unlearned.mean(axis=0), oracle.mean(axis=0)
    variance_u, variance_o = (
        margins.var(axis=0, ddof=1) + _LEAST for margins in (unlearned, oracle)
    )
    ratio = variance_u / variance_o
    found: np.ndarray = ((mean_u - mean_o) ** 2 / variance_o + ratio - 1 - np.log(ratio)) / 2
    return found.clip(max=ceiling())


_LEAST = 1e-6
