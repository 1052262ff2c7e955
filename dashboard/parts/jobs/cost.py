"""What work costs before it starts, in minutes."""

from __future__ import annotations

from engine.store.text import counted
from engine.study.reader import StudyReader
from engine.study.training_time import seconds_per_training


def cost_words(study: StudyReader, algorithm: str, trainings: float) -> str:
    """How long so many trainings with all the data take, as a phrase: `about 12 min`.

    Without models that were trained here, it is not known how long one takes.
    """
    if trainings <= 0:
        return "no time"
    seconds = seconds_per_training(study, algorithm)
    if seconds is None:
        return f"as long as training {counted(max(1, round(trainings)), 'model')}"
    return f"about {duration(trainings * seconds)}"


def duration(seconds: float) -> str:
    """A duration in seconds as text, such as `5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
