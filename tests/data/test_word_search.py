"""Texts are found by their words in any script, whatever the case and the accents."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from engine.data.word_search import fold, parse_query, searchable

FOUND: dict[str, tuple[str, str]] = {
    "case": ("FILM", "a film"),
    "capital letters in the text": ("film", "A FILM"),
    "accents in the text": ("cafe resume", "Résumé of a CAFÉ"),
    "accents in the query": ("café", "the cafe"),
    "decomposed": ("café", "the cafe\u0301"),
    "sharp s": ("strasse", "Straße"),
    "letters with a stroke": ("lodz smorrebrod", "Łódź: smørrebrød"),
    "ligatures": ("aether final", "Æther, ﬁnal"),
    "Turkish": ("istanbul", "İSTANBUL ve ısı"),
    "Greek": ("αλφα", "ΆΛΦΑ"),
    "Russian": ("елка", "Ёлка"),
    "words in another order": ("end begin", "begin and end"),
    "phrase": ('"goes on"', "it goes on"),
    "phrase over punctuation": ('"well made"', "A well-made film"),
    "phrase in curly quotes": ("“goes on”", "it goes on"),
    "phrase without an end": ('"goes on', "it goes on"),
    "hyphens in the query": ("well-made", "well made"),
    "apostrophes": ("don't", "I don’t"),
    "beginning": ("beauti*", "so beautiful"),
    "Chinese": ("电影", "这部电影很好"),
    "Chinese, traditional width": ("ＡＢＣ", "abc"),
    "Japanese": ("映画", "この映画は退屈"),
    "half-width kana": ("ｶﾞ", "ガラス"),
    "Thai": ("ภาพยนตร์", "ชอบภาพยนตร์เรื่องนี้"),
    "Khmer": ("ខ្មែរ", "ភាសាខ្មែរ"),
    "Korean with a particle": ("영화", "이 영화는 좋다"),
    "Arabic with an article": ("فيلم", "هذا الفيلم"),
    "Arabic with vowels": ("العربية", "العَرَبِيَّة"),
    "Hebrew with points": ("שלום", "שָׁלוֹם"),
    "Hebrew with an article": ("סרט", "את הסרט"),
    "Hindi": ("पानी", "ठंडा पानी"),
    "emoji": ("🎬", "so 🎬🍿"),
    "signs": (":-(", "closed early :-("),
    "markup": ("<b>", "<b>bold</b>"),
    "nothing asked": ("", "anything"),
    "only space": ("  ", "anything"),
    "only quotes": ('""', "anything"),
}
NOT_FOUND: dict[str, tuple[str, str]] = {
    "part of a word": ("fil", "a film"),
    "end of a word": ("eautiful", "so beautiful"),
    "one of two words": ("film book", "a film"),
    "phrase in another order": ('"on goes"', "it goes on"),
    "phrase with a word between": ('"goes on"', "goes right on"),
    "another vowel in Hindi": ("पुनी", "ठंडा पानी"),
    "another character": ("电话", "这部电影"),
    "signs of another kind": (":-)", ":-("),
    "a star is no word": ("*", "anything"),
}  # fmt: skip


def contains(query: str, text: str) -> bool:
    line = searchable(text)
    return all(term.needle in (line if term.in_words else text) for term in parse_query(query))


@pytest.mark.input_case
@pytest.mark.parametrize("case", FOUND)
def test_found(case: str) -> None:
    assert contains(*FOUND[case])


@pytest.mark.input_case
@pytest.mark.parametrize("case", NOT_FOUND)
def test_not_found(case: str) -> None:
    assert not contains(*NOT_FOUND[case])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some.text(max_size=60))
@example("𝕊")
def test_a_text_is_found_by_itself(text: str) -> None:
    plain = text.replace("*", " ").translate(dict.fromkeys(map(ord, '"“”„«»'), " "))
    assert contains(plain, plain)
    assert fold(fold(plain)) == fold(plain)


def test_half_characters_of_a_terminal_are_no_error() -> None:
    assert parse_query("caf\udce9 b")[-1].needle == " b "
