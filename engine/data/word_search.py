"""Search texts by their words: any script, any case, with or without accents.

    parse_query('café "main street" begin*')   # terms that must all be in a text
    searchable("The Café on Main Street")      # " the cafe on main street "

A text is searched as the line of its words (`engine.data.words`), so a term matches whole words,
a phrase matches neighboring words whatever stands between them, and in scripts that write no
spaces, where every character is a word, any part of a text can be found. Scripts that attach
articles and particles to a word (Korean, Arabic, Hebrew) are matched inside words, too.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from engine.data.words import words

_ACCENTS = re.compile(
    # Of Latin, Greek and Cyrillic; points and cantillation of Hebrew; vowels of Arabic, its
    # stretching. In other scripts such marks are letters.
    r"[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u065f\u0670]+"
)
_NO_PARTS = str.maketrans({"ø": "o", "đ": "d", "ð": "d", "ł": "l", "ħ": "h", "ı": "i", "ŧ": "t"})
"""Letters with a stroke or without a dot, which Unicode does not take apart."""
_LIGATURES = {"æ": "ae", "œ": "oe", "þ": "th"}
_ATTACHED = re.compile(r"[\u0590-\u08ff\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff\ufb1d-\ufdff]")
"""Hebrew, Arabic and Korean: words carry articles or particles."""
_TERMS = re.compile(r'["“”„«»](?P<phrase>[^"“”„«»]*)["“”„«»]?|(?P<word>[^\s"“”„«»]+)')


@dataclass(frozen=True)
class Term:
    """What a text must contain.

    Attributes:
        needle: A part of `searchable(text)`, or of the text itself if the term has no words.
        in_words: Which of the two.
    """

    needle: str
    in_words: bool = True


def fold(text: str) -> str:
    """The text in lower case and without accents; marks that are letters are kept."""
    if text.isascii():
        return text.lower()
    # Once more, because letters such as 𝕊 are capitals only when taken apart.
    parts = unicodedata.normalize("NFKD", text.casefold()).casefold()
    plain = _ACCENTS.sub("", parts).translate(_NO_PARTS)
    for letter, letters in _LIGATURES.items():
        plain = plain.replace(letter, letters)
    return unicodedata.normalize("NFC", plain)


def searchable(text: str) -> str:
    """The text's words without accents, with a space before, between and after them."""
    return f" {' '.join(words(fold(text)))} "


def parse_query(query: str) -> tuple[Term, ...]:
    """The terms of a search: words, phrases in quotes, and beginnings of words such as `begin*`.

    A term without any word, such as `:-(`, is searched as it is. An empty query has no terms.
    """
    query = query.encode("utf-8", "replace").decode()  # a terminal may send half characters
    terms = []
    for found in _TERMS.finditer(query):
        phrase = found["phrase"] if found["phrase"] is not None else found["word"]
        begins = phrase.endswith("*") and len(phrase) > 1
        line = " ".join(words(fold(phrase)))
        if not line:
            if literal := phrase.strip():
                terms.append(Term(literal, in_words=False))
        elif _ATTACHED.search(line):
            terms.append(Term(line))
        else:
            terms.append(Term(f" {line}" if begins else f" {line} "))
    return tuple(terms)
