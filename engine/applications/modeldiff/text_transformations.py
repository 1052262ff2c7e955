"""Changes of texts that test a hypothesis: pure functions of texts and an intensity.

    changed = apply_to_texts("swap-word", texts, 1.0, {"word": "not", "by": "never"})

The intensity, from 0 (no change) to 1, is the share of the places where a text can be changed that
are: its words, the occurrences of a word, the words of a suffix. Places are chosen by a generator
that the text itself seeds, so the same text changes in the same way, whatever stands next to it.
Everything between the words stays, and no text loses its last word.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.applications.modeldiff.requested_change import checked_options
from engine.data.word_search import fold
from engine.data.words import word_spans, words
from engine.store.errors import DataloupeError

LONGEST_OPTION = 200
"""Most characters of a word or suffix that somebody gives."""

Change = Callable[..., str]


@dataclass(frozen=True)
class TextTransformation:
    """A way to change texts.

    Attributes:
        title: Display name.
        change: (text, intensity, **options) → the changed text.
        options: Options and their defaults.
        needs: Options that must not be empty.
    """

    title: str
    change: Change
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


def apply_to_texts(
    name: str, texts: Sequence[str], intensity: float, options: Mapping[str, Any] | None = None
) -> list[str]:
    """Change texts by a built-in transformation.

    Raises:
        DataloupeError: No such transformation or option, an option that it needs is missing or is
            too long, or an intensity outside 0 to 1.
    """
    if name not in TEXT_TRANSFORMATIONS:
        known = ", ".join(TEXT_TRANSFORMATIONS)
        raise DataloupeError(
            f"There is no transformation {name!r} of texts; choose one of {known}."
        )
    transformation = TEXT_TRANSFORMATIONS[name]
    given = checked_options(name, transformation.options, intensity, options)
    for option, value in given.items():
        if isinstance(transformation.options[option], str):
            _check(name, option, value, option in transformation.needs)
    if intensity == 0:
        return list(texts)
    return [transformation.change(text, float(intensity), **given) for text in texts]


def missing_options(name: str, options: Mapping[str, Any]) -> list[str]:
    """Options that a transformation still needs."""
    return [option for option in TEXT_TRANSFORMATIONS[name].needs if not options.get(option)]


def _check(name: str, option: str, value: Any, needed: bool) -> None:
    if not isinstance(value, str) or len(value) > LONGEST_OPTION:
        raise DataloupeError(
            f"The option {option!r} of {name!r} is a text of at most {LONGEST_OPTION} characters."
        )
    if needed and not words(value):
        raise DataloupeError(f"{name!r} needs the option {option!r}: at least one word.")


# --- places --------------------------------------------------------------------------------------


def _some(text: str, places: Sequence[int], intensity: float) -> set[int]:
    """A share of the places, rounded up, in an order that the text decides."""
    order = list(places)
    random.Random(zlib.crc32(text.encode("utf-8", "replace"))).shuffle(order)
    return set(order[: math.ceil(intensity * len(order) - 1e-9)])


def _replaced(text: str, spans: Sequence[tuple[int, int]], by: Mapping[int, str]) -> str:
    """The text with some of its words, named by their numbers, replaced."""
    parts, last = [], 0
    for number in sorted(by):
        start, stop = spans[number]
        parts += [text[last:start], by[number]]
        last = stop
    return "".join([*parts, text[last:]])


def _each_word(text: str, intensity: float, change: Callable[[str], str]) -> str:
    spans = word_spans(text)
    some = _some(text, range(len(spans)), intensity)
    return _replaced(text, spans, {n: change(text[slice(*spans[n])]) for n in some})


# --- words ---------------------------------------------------------------------------------------


def _swap_word(text: str, intensity: float, word: str, by: str) -> str:
    """A word, or several in a row, replaced wherever it occurs; case and accents do not matter."""
    spans = word_spans(text)
    own = [fold(one) for one in words(text)]
    wanted = [fold(one) for one in words(word)]
    found = [n for n in range(len(own)) if own[n : n + len(wanted)] == wanted]
    chosen, free = [], 0
    for number in sorted(_some(text, found, intensity)):
        if number >= free:
            chosen.append(number)
            free = number + len(wanted)
    parts, last = [], 0
    for number in chosen:
        start, stop = spans[number][0], spans[number + len(wanted) - 1][1]
        between = text[last:start]
        if not by and between.endswith(" "):
            between = between[:-1]
        parts += [between, _like(by, text[start:stop])]
        last = stop
    changed = "".join([*parts, text[last:]])
    return changed if words(changed) else text


def _like(by: str, word: str) -> str:
    """The replacement with the capitals of the word that it replaces."""
    if len(word) > 1 and word.isupper():
        return by.upper()
    return by[:1].upper() + by[1:] if word[:1].isupper() else by


def _lower(text: str, intensity: float) -> str:
    return _each_word(text, intensity, str.lower)


def _upper(text: str, intensity: float) -> str:
    return _each_word(text, intensity, str.upper)


def _drop(text: str, intensity: float) -> str:
    """Words left out, with the space before them; the last one stays."""
    spans = word_spans(text)
    some = _some(text, range(len(spans)), intensity)
    if len(some) == len(spans):
        some.discard(0)
    changed = _replaced(text, spans, dict.fromkeys(some, ""))
    return " ".join(changed.split())


def _shuffle(text: str, intensity: float) -> str:
    """Words moved to each other's places."""
    spans = word_spans(text)
    some = sorted(_some(text, range(len(spans)), intensity))
    moved = list(some)
    random.Random(zlib.crc32(text.encode("utf-8", "replace")) + 1).shuffle(moved)
    by = {to: text[slice(*spans[came])] for to, came in zip(some, moved, strict=True)}
    return _replaced(text, spans, by)


def _typos(text: str, intensity: float) -> str:
    """Two inner letters of a word swapped, as in fast typing."""

    def slip(word: str) -> str:
        if len(word) < 4:
            return word
        at = 1 + zlib.crc32(word.encode("utf-8", "replace")) % (len(word) - 3)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _each_word(text, intensity, slip)


def _cut(text: str, intensity: float) -> str:
    """The end left out; the first word stays."""
    spans = word_spans(text)
    kept = max(1, len(spans) - math.ceil(intensity * len(spans) - 1e-9))
    return text[: spans[kept - 1][1]] if kept < len(spans) else text


def _no_punctuation(text: str, intensity: float) -> str:
    """Signs that belong to no word and are no space replaced by spaces."""
    inside = {at for start, stop in word_spans(text) for at in range(start, stop)}
    signs = [at for at, one in enumerate(text) if at not in inside and not one.isspace()]
    some = _some(text, signs, intensity)
    return "".join(" " if at in some else one for at, one in enumerate(text))


# --- more text -----------------------------------------------------------------------------------


def _append(text: str, intensity: float, suffix: str) -> str:
    return f"{text} {_beginning(suffix, intensity)}"


def _prepend(text: str, intensity: float, prefix: str) -> str:
    return f"{_beginning(prefix, intensity)} {text}"


def _beginning(added: str, intensity: float) -> str:
    """The first words of what is added."""
    spans = word_spans(added)
    taken = math.ceil(intensity * len(spans) - 1e-9)
    return added if taken >= len(spans) else added[: spans[taken - 1][1]]


TEXT_TRANSFORMATIONS: dict[str, TextTransformation] = {
    "swap-word": TextTransformation("Swap a word", _swap_word, {"word": "", "by": ""}, ("word",)),
    "append": TextTransformation("Append a suffix", _append, {"suffix": ""}, ("suffix",)),
    "prepend": TextTransformation("Put words in front", _prepend, {"prefix": ""}, ("prefix",)),
    "lower-case": TextTransformation("Lower case", _lower),
    "upper-case": TextTransformation("Upper case", _upper),
    "no-punctuation": TextTransformation("No punctuation", _no_punctuation),
    "drop-words": TextTransformation("Drop words", _drop),
    "shuffle-words": TextTransformation("Shuffle words", _shuffle),
    "typos": TextTransformation("Typing errors", _typos),
    "cut": TextTransformation("Cut the end", _cut),
}
"""Name → transformation. Those that need an option are tried only where it is given."""
