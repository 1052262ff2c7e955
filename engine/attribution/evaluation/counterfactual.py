"""The predicted effect of removing any set of training examples on every test prediction.

    found = study.counterfactual(["train-17", "train-99"])
    found.change, found.by_group["Coat"]

It is a sum of columns of the score matrix, so it needs no training. Retraining
(`engine.applications.verification`) tells how accurate it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.attribution.evaluation.quality import Measured


@dataclass(frozen=True)
class Counterfactual:
    """A removal and its predicted effect.

    Attributes:
        algorithm, method: Whose scores were summed.
        removed: Training rows, ascending int64 `[k]`.
        calibrated: Whether changes are in the unit of the model output. Otherwise they are sums of
            scores, which order changes but give no size: there are no intervals and no flips.
        change: Predicted change of every test example, float64 `[n_test]`.
        low, high: Its 95 % interval; None where scores are not calibrated.
        before: Outputs of the checkpoints, float64 `[n_test]`; None without predictions.
        by_group: Group, such as a class → mean change over its test examples. Without calibration
            there is no interval, and both ends are the mean.
        emptied: Groups that would have no training example left. Scores cannot predict that.
        output: Name of the model output, such as `margin`.
        logit_gap: Logit of the true label minus the largest other, float64 `[n_test]`, which is 0
            where the predicted class changes. A removal is assumed to change it as much as the
            output, which is the margin. None without predictions and for tasks without classes.
    """

    algorithm: str
    method: str
    removed: np.ndarray
    calibrated: bool
    change: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    before: np.ndarray | None
    by_group: dict[str, Measured]
    emptied: list[str]
    output: str
    logit_gap: np.ndarray | None = None

    @property
    def after(self) -> np.ndarray | None:
        """Predicted outputs `[n_test]`; None where scores are not calibrated."""
        if self.before is None or not self.calibrated:
            return None
        after: np.ndarray = self.before + self.change
        return after

    @property
    def can_flip(self) -> bool:
        """Whether it is predicted which predictions flip."""
        return self.calibrated and self.logit_gap is not None

    @property
    def lost(self) -> np.ndarray:
        """Test rows that are predicted right and, after the removal, as another class; strongest
        change first."""
        return self._crossing(-1)

    @property
    def won(self) -> np.ndarray:
        """Test rows that are predicted wrong and, after the removal, right; strongest change first.

        Scores of the true label cannot tell that a wrong prediction becomes another wrong one.
        """
        return self._crossing(1)

    @property
    def flips(self) -> np.ndarray:
        """Test rows whose predicted class is predicted to change: `lost` and `won`, ascending."""
        return np.union1d(self.lost, self.won)

    def _crossing(self, sign: int) -> np.ndarray:
        if self.logit_gap is None or not self.calibrated:
            return np.empty(0, np.int64)
        after = self.logit_gap + self.change
        rows = np.flatnonzero((sign * self.logit_gap <= 0) & (sign * after > 0))
        return rows[np.argsort(-np.abs(self.change[rows]), kind="stable")]

    def strongest(self, sign: int, most: int) -> np.ndarray:
        """At most `most` test rows whose margins rise (`sign` 1) or fall (−1) most, strongest
        first."""
        order = np.argsort(-sign * self.change, kind="stable")[:most]
        return order[sign * self.change[order] > 0]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        after = self.after
        arrays = {
            "change": self.change,
            "low": self.low,
            "high": self.high,
            "before": self.before,
            "after": after,
            "logit_gap": self.logit_gap,
        }
        return {
            "algorithm": self.algorithm,
            "method": self.method,
            "removed": self.removed.tolist(),
            "unit": self.output if self.calibrated else "score",
            "by_group": {
                label: vars(found) if self.calibrated else {"mean": found.mean}
                for label, found in self.by_group.items()
            },
            "flips": self.flips.tolist(),
            "lost": self.lost.tolist(),
            "won": self.won.tolist(),
            "emptied": self.emptied,
            **{name: None if array is None else array.tolist() for name, array in arrays.items()},
        }
