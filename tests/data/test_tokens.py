"""Tokens: where they are in a text, and tokenizers that are learned."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.tokens import token_spans, tokenize, tokenizer_of
from engine.data.words import word_spans, words
from engine.tasks.text_options import Choice, Options
from engine.tasks.tokenizers import plan_tokens, same_tokenizer, train_wordpiece
from tests.builders.sentences import sentences
from tests.data.test_words import WORDS


@pytest.mark.input_case
@pytest.mark.parametrize("case", WORDS)
def test_spans_of_words_hold_the_words(case: str) -> None:
    text, wanted = WORDS[case]
    assert [words(text[start:stop]) for start, stop in word_spans(text)] == [[w] for w in wanted]


LETTERS = "aB 's’İßΣςée\u0301ｶﾞ한ᄒ\u1161\u11ab\u200d\ufe0fक्ष世😀\u0e33น\u0e49\u00ad."


@settings(deadline=None)
@given(st.text(alphabet=LETTERS, max_size=12))
def test_spans_are_in_order_and_inside_the_text(text: str) -> None:
    spans = word_spans(text)
    assert len(spans) == len(words(text))
    ends = [0, *(stop for _, stop in spans)]
    for (start, stop), end in zip(spans, ends, strict=False):
        assert end <= start < stop <= len(text)


@pytest.fixture(scope="module")
def encoding() -> dict[str, Any]:
    rows = [(text, str(row)) for row, text in enumerate(sentences(40, 0)["text"])]
    return plan_tokens(Choice("wordpiece"), Options(), [rows])


def test_spans_of_tokens_are_those_of_the_models_positions(encoding: dict[str, Any]) -> None:
    text = "The cook LOVED this film the old song and more"
    spans, tokenizer = token_spans(text, encoding), tokenizer_of(encoding)
    tokens = [tokenizer.id_to_token(id_) for id_ in tokenize([text], encoding)[0].ids]
    assert len(spans) == len(tokens) == encoding["max_tokens"] == 8
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert spans[0] == spans[-1] == (0, 0)
    found = [text[start:stop].lower() for start, stop in spans[1:-1]]
    assert [token.removeprefix("##") for token in tokens[1:-1]] == found


def test_spans_by_words_stop_where_the_text_is_cut() -> None:
    encoding = {"vocabulary": ["<padding>", "<unknown>"], "max_tokens": 2}
    assert token_spans("One, two three", encoding) == [(0, 3), (5, 8)]


@pytest.mark.determinism
def test_wordpiece_is_the_same_in_every_process() -> None:
    """Hash tables are seeded by the process, and the library's trainer breaks ties by them."""
    texts = [*sentences(30, 0)["text"], "naïve café 世界 Zürich, don't!", "zyxwv vwxyz"]
    script = (
        "import json, sys; from engine.tasks.tokenizers import train_wordpiece\n"
        "print(json.dumps(train_wordpiece(json.loads(sys.argv[1]), 140).content))"
    )
    command = [sys.executable, "-c", script, json.dumps(texts)]
    other = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(other.stdout) == train_wordpiece(texts, 140).content


def test_wordpiece_reads_what_it_learned() -> None:
    made = train_wordpiece(["aa ab", "ab ##b [SEP]"] * 3, 50)
    content = json.loads(made.content)
    vocabulary = content["model"]["vocab"]
    assert [one["content"] for one in content["added_tokens"]] == [
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    ]
    assert {"a", "##a", "##b", "ab"} <= vocabulary.keys()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert made.padding == vocabulary["[PAD]"] == 0
    assert not same_tokenizer(made.content, train_wordpiece(["other"], 50).content)
