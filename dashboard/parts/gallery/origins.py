"""Beyond the strongest examples: groups that support a prediction, timesteps, sides, copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dashboard.location import Location
from dashboard.parts.gallery.by_part import by_part
from dashboard.parts.gallery.copy_or_cause import copy_or_cause
from dashboard.parts.gallery.over_timesteps import over_timesteps
from dashboard.parts.gallery.support_groups import support_groups
from dashboard.read.group_sums import stored_sums
from dashboard.read.studies import Examples
from engine.applications.live import Attributed
from engine.study.example_outputs import live_missing
from engine.study.reader import StudyReader
from engine.study.trajectories import read_trajectory


def origins(
    study: StudyReader,
    row: int,
    training: Examples,
    scores: Attributed | None,
    strongest: Sequence[np.ndarray],
    here: Location,
    kind: str,
) -> None:
    """Show them, as far as they are known.

    Args:
        scores: Of an output that is computed live; None: those that are stored.
        strongest: The training rows that support most and that oppose most, strongest first.
        kind: `picture` or `text`.
    """
    assert here.method is not None
    if scores is None:
        sums = stored_sums(study, row, here.algorithm, here.method)
    else:
        sums = dict(scores.by_group)
    support_groups(sums, kind)
    if not live_missing(study, here.algorithm):
        over_timesteps(study, row, training, strongest, here, kind)
        if scores is None:
            by_part(study, row, training, strongest, here, kind)
    if read_trajectory(study, row) is not None:
        copy_or_cause(study, row, training, strongest, here, kind)
