"""A text → its words, in any script.

    words("Don't PANIC, पानी!")   # ["don't", "panic", "पानी"]

Training texts, test texts and texts from outside go through this one function. The text is
lower-cased in Unicode normal form C, so that composed and decomposed letters are the same; forms
of East Asian width become the usual ones.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache

_ASCII_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

# Scripts that put no space between words: Chinese, Japanese, and those of South East Asia. Their
# digits and marks are not listed.
_UNSPACED = (
    r"\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u3096\u309d-\u30fa\u30fc-\u30ff"
    r"\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
    r"\u0e01-\u0e32\u0e40-\u0e46\u0e81-\u0eb2\u0ebd-\u0ec6\u0edc-\u0edf"  # Thai, Lao
    r"\u1000-\u102a\u103f\u1050-\u1081\u108e\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f"  # Myanmar
    r"\u1780-\u17b3\u17d7\u17dc\u1950-\u1974\u1980-\u19c9\u1a20-\u1a54\u1aa7"  # Khmer, Tai
    r"\uaa80-\uaadd\u1b05-\u1b4c\ua984-\ua9b2\ua9cf"  # Tai Viet, Balinese, Javanese
)
_STACKING = r"\u1039\u17d2\u1a60\ua9c0\u1b44"
"""Marks that write the next letter below: Myanmar, Khmer, Tai Tham, Javanese, Balinese."""
_SPACING_VOWELS = r"\u0e33\u0eb3"
"""Thai and Lao vowels that are letters to Unicode, and belong to the letter before."""
_EMOJI = (
    r"\U0001f300-\U0001f3fa\U0001f400-\U0001f64f\U0001f680-\U0001f6ff\U0001f7e0-\U0001f7eb"
    r"\U0001f90c-\U0001f9ff\U0001fa70-\U0001faff\u231a\u231b\u23e9-\u23f3\u2600-\u26ff"
    r"\u2705\u270a-\u270d\u2728\u274c\u274e\u2753-\u2757\u2764\u2795-\u2797\u2b50\u2b55"
)
_SKIN = r"\U0001f3fb-\U0001f3ff"
_INVISIBLE = re.compile(r"[\u00ad\u034f\u2060\ufeff\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
"""Soft hyphens, joiners of lines, and variants of the character before: no part of a word."""
_WIDE = re.compile(r"[\uff01-\uff9f\uffe0-\uffee]+")


def words(text: str) -> list[str]:
    """Split a text into lower-case words, in the order of the text.

    A word is a run of letters and digits with the marks that combine with them, and with inner
    apostrophes ("don't") and zero-width joiners. In scripts that are written without spaces every
    character with its marks is a word, and so is every emoji. Everything else separates words.
    """
    pattern, normal = _normalized(text)
    return pattern.findall(normal)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word of `words(text)` is in the text as it was given: (start, stop)."""
    pattern, normal = _normalized(text)
    found = [match.span() for match in pattern.finditer(normal)]
    if len(normal) == len(text) and normal == text.lower():
        return found
    # Where each character of the normal form comes from. It is the same for a cluster alone as for
    # the cluster in its text, but for letters whose lower case depends on their neighbors, and
    # those are as long.
    clusters = list(_clusters(text))
    sizes = [len(_normalized(text[start:stop])[1]) for start, stop in clusters]
    if sum(sizes) != len(normal):
        clusters = [match.span() for match in re.finditer(r"\s+|\S+", text)]
        sizes = [len(_normalized(text[start:stop])[1]) for start, stop in clusters]
    origin = [cluster for cluster, size in zip(clusters, sizes, strict=True) for _ in range(size)]
    return [(origin[start][0], origin[stop - 1][1]) for start, stop in found]


def _normalized(text: str) -> tuple[re.Pattern[str], str]:
    """The normal form of a text, and what matches its words."""
    if text.isascii():
        return _ASCII_WORD, text.lower()
    text = _WIDE.sub(_usual_width, _INVISIBLE.sub("", text)).replace("’", "'")
    # Lower-casing can undo the normal form.
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    return _word_pattern(), text


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Parts of a text that the normal form does not join: a character and what combines with it."""
    start, before = 0, ""
    for place, letter in enumerate(text):
        if place and not _combines(before, letter):
            yield start, place
            start = place
        if _INVISIBLE.match(letter) is None:
            before = letter
    if text:
        yield start, len(text)


def _combines(before: str, letter: str) -> bool:
    """Whether a character may be composed with the last visible one before."""
    if "\u1160" <= letter <= "\u11ff":  # vowels and finals of Korean syllables
        return "\u1100" <= before <= "\u11ff" or "\uac00" <= before <= "\ud7a3"
    return (
        unicodedata.category(letter) in ("Mn", "Mc", "Me")
        or letter in "\uff9e\uff9f"  # the marks of half-width kana
        or _INVISIBLE.match(letter) is not None
    )


def _usual_width(found: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", found.group())


@cache
def _word_pattern() -> re.Pattern[str]:
    """Built for the first text beyond ASCII: looking up all marks takes a third of a second."""
    marks = _marks() + _SPACING_VOWELS
    letter = rf"[^\W_{_UNSPACED}{_SPACING_VOWELS}]"
    goes_on = rf"(?:{letter}|[{marks}])"
    word = rf"{letter}{goes_on}*(?:[\u200c\u200d]+{goes_on}+)*"
    character = rf"[{_UNSPACED}][{marks}]*(?:(?<=[{_STACKING}])[{_UNSPACED}][{marks}]*)*"
    emoji = rf"[{_EMOJI}][{_SKIN}]?(?:\u200d[{_EMOJI}\u2640\u2642][{_SKIN}]?)*"
    flag = r"[\U0001f1e6-\U0001f1ff]{2}"
    return re.compile(rf"{word}(?:'{word})*|{character}|{emoji}|{flag}")


def _marks() -> str:
    """All combining marks (categories Mn and Mc), as the inside of a character class."""
    runs: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in ("Mn", "Mc"):
            if runs and runs[-1][1] == code - 1:
                runs[-1][1] = code
            else:
                runs.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs)
