"""Words in every script: what is one word, what is two, and what is the same word."""

from __future__ import annotations

import unicodedata
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.build.encoding import encode_split
from engine.data.words import words
from engine.tasks import load_task
from engine.tasks.text_classification import Options, accept, encode, plan_encoding

WORDS: dict[str, tuple[str, list[str]]] = {
    "hindi": ("आधुनिक मानक हिन्दी", ["आधुनिक", "मानक", "हिन्दी"]),
    "bengali": ("বাংলা ভাষা", ["বাংলা", "ভাষা"]),
    "tamil": ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
    "telugu": ("తెలుగు క్ష", ["తెలుగు", "క్ష"]),
    "arabic with vowels": ("العَرَبِيَّة لُغَة", ["العَرَبِيَّة", "لُغَة"]),
    "hebrew with points": ("שָׁלוֹם", ["שָׁלוֹם"]),
    "persian, zero-width non-joiner": ("می\u200cخواهم کتاب", ["می\u200cخواهم", "کتاب"]),
    "sinhala, zero-width joiner": ("ක්\u200dෂ", ["ක්\u200dෂ"]),
    "joiners alone": ("a \u200d\u200c b\u200d", ["a", "b"]),
    "vietnamese, decomposed": (unicodedata.normalize("NFD", "tiếng Việt"), ["tiếng", "việt"]),
    "café, decomposed": ("cafe\u0301", ["caf\u00e9"]),
    "no composed form": ("q\u0323a", ["q\u0323a"]),
    "Turkish capital": ("İstanbul", ["i\u0307stanbul"]),
    "greek": ("ΆΛΦΑ άλφα", ["άλφα", "άλφα"]),
    "korean has spaces": ("한국어 문장", ["한국어", "문장"]),
    "korean, decomposed": (unicodedata.normalize("NFD", "한국어"), ["한국어"]),
    "chinese": ("我喜欢猫。", list("我喜欢猫")),
    "japanese": ("東京タワーへ行く", list("東京タワーへ行く")),
    "half-width kana": ("ｶﾞｷﾞ", ["ガ", "ギ"]),
    "full-width": ("Ｈｅｌｌｏ　１２３！", ["hello", "123"]),
    "rare han": ("𠮷野家", list("𠮷野家")),
    "variant of a character": ("葛\U000e0100城", ["葛", "城"]),
    "thai": ("ภาษาไทยน้ำที่", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย", "น้ำ", "ที่"]),
    "thai digits": ("๑๒๓ บาท", ["๑๒๓", "บ", "า", "ท"]),
    "lao": ("ລາວ", ["ລ", "າ", "ວ"]),
    "khmer": ("ខ្មែរ", ["ខ្មែ", "រ"]),
    "myanmar": ("မြန်မာ", ["မြ", "န်", "မာ"]),
    "scripts together": ("iPhone15手机 ok", ["iphone15", "手", "机", "ok"]),
    "apostrophes": ("Don't don’t l’été 'quoted' ‘so’", ["don't", "don't", "l'été", "quoted", "so"]),
    "separators": ("42_times—größer, a/b", ["42", "times", "größer", "a", "b"]),
    "soft hyphen": ("co\u00adoperate", ["cooperate"]),
    "zero-width space": ("a\u200bb", ["a", "b"]),
    "emoji": ("so 😀😀 ❤\ufe0f!", ["so", "😀", "😀", "❤"]),
    "emoji of several": ("👩🏽\u200d💻🇩🇪🇫🇷", ["👩🏽\u200d💻", "🇩🇪", "🇫🇷"]),
    "mark alone": ("\u0301 a", ["a"]),
    "nothing": (" ...'' ", []),
}  # fmt: skip


@pytest.mark.input_case
@pytest.mark.parametrize("case", WORDS)
def test_words(case: str) -> None:
    text, expected = WORDS[case]
    assert words(text) == expected
    assert words(unicodedata.normalize("NFD", text)) == expected
    assert words(" ".join(expected)) == expected  # a word is one word


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_every_form_of_a_text_has_the_same_words(text: str) -> None:
    found = words(text)
    assert all(found)
    for form in ("NFC", "NFD"):
        assert words(unicodedata.normalize(form, text)) == found


def test_ascii_and_other_texts_have_the_same_rule() -> None:
    text = "Don't stop_now: it's 3.14 o'clock''s 'yes'"
    assert words(text) == words(text + " é")[:-1]


# --- the share of unknown words -------------------------------------------------------------------


def rows_of(*texts: str) -> datasets.Dataset:
    ids = [f"x-{row}" for row in range(len(texts))]
    return datasets.Dataset.from_dict({"input": texts, "label": [0] * len(texts), "id": ids})


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("test", "share", "warned"),
    [
        pytest.param(["यह हिन्दी", "cafe\u0301"], "0.0%", False, id="known"),
        pytest.param(["यह हिन्दी है", "यह यह यह"], "16.7%", False, id="some unknown"),
        pytest.param(["यह है", "था"], "66.7%", True, id="most unknown"),
        pytest.param(["यह", "one two three four five six seven"], "80.0%", True, id="cut"),
    ],
)
def test_the_share_of_unknown_words_is_said(test: list[str], share: str, warned: bool) -> None:
    task, options = load_task("text-classification"), Options(max_tokens=4)
    train, tests = rows_of("यह हिन्दी यह यह", "caf\u00e9"), rows_of(*test)
    encoding = task.plan_encoding(train, options, ["a"])
    shards: Any = [one.arrays for one in encode_split(tests, task, options, encoding, 1)]
    found = task.remarks(tests, encoding, {"train": [], "test": shards})
    assert found.notes == [f"{share} of the words of the test texts are unknown."]
    assert len(found.warnings) == warned
    assert not warned or found.warnings[0].startswith(found.notes[0])


@pytest.mark.input_case
def test_a_live_text_has_the_words_of_the_training_texts() -> None:
    encoding = plan_encoding(rows_of("हिन्दी caf\u00e9 東京"), Options(), ["a"])
    accepted = accept({"text": "HINDI हिन्दी cafe\u0301 京"}, Options(), encoding)
    tokens = encode([accepted.row], accepted.options, encoding).arrays["input"][0]
    assert [encoding["vocabulary"][token] for token in tokens] == (
        ["<unknown>", "हिन्दी", "caf\u00e9", "京"]
    )
