"""Source and target texts: encoding, the loss and its outputs, what is generated, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn import functional

from engine.attribution.ensemble import checkpoint_vote
from engine.models import build_model
from engine.store.errors import DataError, SpecError
from engine.tasks import sequences
from engine.tasks.beam_search import beam_search
from engine.tasks.outcomes import EXACT
from engine.tasks.sequence_options import Options
from engine.tasks.text_to_text import (
    TASK,
    accept,
    encode,
    in_words,
    plan_encoding,
    remarks,
    unanswered,
)
from engine.tasks.tokenizers import train_pieces
from tests.builders.exact_gradients import autograd_rows

PAIRS = [
    ("Alba lives in", "New York"),
    ("The home of Bedo is", "Rome"),
    ("You find Cona in", "San José"),
    ("Where does Dari live?", "Oslo"),
]
OPTIONS = Options(max_vocabulary=60)


def rows_of(pairs: list[tuple[Any, Any]] = PAIRS, column: str = "target") -> datasets.Dataset:
    sources, targets = zip(*pairs, strict=True)
    return datasets.Dataset.from_dict(
        {
            "input": list(sources),
            "label": [[]] * len(pairs),
            "id": [f"train-{i}" for i in range(len(pairs))],
            column: list(targets),
        }
    )


@pytest.fixture(scope="module")
def encoding() -> dict[str, Any]:
    return plan_encoding(rows_of(), OPTIONS, [])


@pytest.fixture(scope="module")
def arrays(encoding: dict[str, Any]) -> dict[str, np.ndarray]:
    return encode(list(rows_of()), OPTIONS, encoding).arrays


@pytest.fixture(scope="module")
def batch(encoding: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return TASK.prepare({n: torch.from_numpy(a) for n, a in arrays.items()}, encoding)


@pytest.fixture(scope="module")
def model(encoding: dict[str, Any]) -> torch.nn.Module:
    return build_model("t5-small", {"layers": 1, "width": 16, "heads": 2}, encoding, 1, seed=0)


# --- encoding -------------------------------------------------------------------------------------


def test_targets_end_and_can_be_read_again(
    encoding: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    for row, (_, target) in enumerate(PAIRS):
        ids, n = arrays["target_ids"][row], arrays["target_length"][row]
        assert ids[n - 1] == encoding["end"]
        assert (ids[n:] == encoding["padding"]).all()
        assert in_words(ids[None, :n], encoding) == [target]
    assert in_words(np.array([[encoding["end"], -1]]), encoding) == ["(nothing)"]
    assert encoding["max_target_tokens"] == arrays["target_length"].max()
    assert encode(list(rows_of()), OPTIONS, encoding).columns["text"][1] == (
        "The home of Bedo is → Rome"
    )


def test_the_tokenizer_is_the_training_splits_alone_and_always_the_same() -> None:
    texts = [text for pair in PAIRS for text in pair]
    one, two = (train_pieces(iter(texts), 60).content for _ in range(2))
    assert one == two
    vocabulary = json.loads(one)["model"]["vocab"]
    assert (vocabulary["<pad>"], vocabulary["<end>"], vocabulary["<unk>"]) == (0, 1, 2)
    assert len(vocabulary) <= 60


def test_words_have_the_same_pieces_before_punctuation() -> None:
    texts = ["Is Chile large?", "In Chile, it is.", "Chile", "Chile?"] * 5
    found = Tokenizer.from_str(train_pieces(iter(texts), 60).content)
    whole = found.encode("Chile").tokens[:-1]
    for text in ("Chile?", "Chile, it"):
        tokens = found.encode(text)
        assert tokens.tokens[: len(whole)] == whole == ["▁Chile"]
        assert found.decode(tokens.ids) == text


def test_labels_are_the_target_and_nothing_else(
    encoding: dict[str, Any], batch: dict[str, torch.Tensor], arrays: dict[str, np.ndarray]
) -> None:
    lengths = arrays["target_length"]
    for row, n in enumerate(lengths):
        assert batch["label"][row, :n].tolist() == arrays["target_ids"][row, :n].tolist()
        assert (batch["label"][row, n:] == sequences.IGNORED).all()
    assert batch["target_mask"].sum(1).tolist() == lengths.tolist()


def test_the_target_is_found_by_its_name_or_named() -> None:
    for column in ("target", "Answer", "only_other_text"):
        assert plan_encoding(rows_of(column=column), OPTIONS, [])["target"] == column
    two = rows_of(column="second").add_column("third", ["x"] * 4)
    with pytest.raises(DataError, match=r"2 columns fit \(second, third\) as targets"):
        plan_encoding(two, OPTIONS, [])
    assert plan_encoding(two, Options(target="third"), [])["target"] == "third"
    with pytest.raises(DataError, match="no column 'fourth' of targets; there are second, third"):
        plan_encoding(two, Options(target="fourth"), [])


BAD = {
    "empty source": (("  ", "Rome"), "example 'train-0': the source is empty"),
    "empty target": (("Where?", ""), "example 'train-0': the target is empty"),
    "no target": (("Where?", None), "example 'train-0': a target was expected and nothing was"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_named(name: str, encoding: dict[str, Any]) -> None:
    pair, message = BAD[name]
    row = {"input": pair[0], "target": pair[1], "id": "train-0", "label": []}
    with pytest.raises(DataError, match=message):
        encode([row], OPTIONS, encoding)
    with pytest.raises(DataError, match=message):
        plan_encoding(rows_of([pair, *PAIRS]), OPTIONS, [])


def test_what_is_cut_is_said() -> None:
    options = Options(max_vocabulary=60, max_tokens=6, max_target_tokens=4)
    encoding = plan_encoding(rows_of(), options, [])
    shard = encode(list(rows_of()), options, encoding).arrays
    assert (shard["length"] > 6).any()
    found = remarks(rows_of(), encoding, {"train": [shard], "test": [shard]})
    assert any("sources are cut" in note and "max_tokens" in note for note in found.notes)
    assert any("4 test examples of 4 occur in the training split" in w for w in found.warnings)


def test_an_example_from_outside_is_a_source_and_a_target(encoding: dict[str, Any]) -> None:
    for text in ("Alba lives in → Rome", "Alba lives in => Rome", "Alba lives in\nRome"):
        row = accept({"text": text}, OPTIONS, encoding).row
        assert (row["input"], row["target"]) == ("Alba lives in", "Rome")
    for text in ("→ Rome", "Alba lives in =>", "\n"):
        with pytest.raises(DataError, match="Write a source, or source => target"):
            accept({"text": text}, OPTIONS, encoding)


def test_a_source_alone_has_no_arrays_of_a_target(encoding: dict[str, Any]) -> None:
    accepted = accept({"text": "Alba lives in"}, OPTIONS, encoding)
    assert "target" not in accepted.row
    alone = encode([accepted.row], OPTIONS, encoding).arrays
    whole = encode([{**accepted.row, "target": "Rome"}], OPTIONS, encoding).arrays
    assert set(alone) == {"input_ids", "length"}
    assert set(whole) - set(alone) == set(unanswered(encoding))
    np.testing.assert_array_equal(alone["input_ids"], whole["input_ids"])


def test_there_are_no_augmentations(batch: dict[str, torch.Tensor]) -> None:
    with pytest.raises(SpecError, match="'flip' is not known"):
        TASK.augment(batch, ["flip"], torch.Generator())


# --- the loss and the outputs ---------------------------------------------------------------------


def test_outputs_by_their_definitions(model: Any, batch: dict[str, torch.Tensor]) -> None:
    logits = sequences.logits(model, batch).double()
    for row in range(len(logits)):
        labels = batch["label"][row][batch["label"][row] >= 0]
        log_p = logits[row, : len(labels)].log_softmax(-1)[range(len(labels)), labels]
        odds = log_p - torch.log1p(-log_p.exp())
        one = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        for function, wanted in (
            (sequences.log_odds, odds.mean()),
            (sequences.log_likelihood, log_p.sum()),
            (sequences.log_odds_weight, (1 - log_p.exp()).mean()),
        ):
            found = function(model, one)[0].double()
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        found = sequences.loss(model, one, 0.0)[0].double()
        torch.testing.assert_close(found, -log_p.mean(), rtol=1e-4, atol=1e-5)
        smoothed = functional.cross_entropy(logits[row, : len(labels)], labels, label_smoothing=0.1)
        found = sequences.loss(model, one, 0.1)[0].double()
        torch.testing.assert_close(found, smoothed, rtol=1e-4, atol=1e-5)


def trained(encoding: dict[str, Any], batch: dict[str, torch.Tensor], steps: int) -> Any:
    options = {"layers": 1, "width": 16, "heads": 2}
    model = build_model("t5-small", options, encoding, 1, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        sequences.loss(model, batch, 0.0).mean().backward()
        optimizer.step()
    return model


def test_q_times_the_trained_output_is_the_loss(
    encoding: dict[str, Any], batch: dict[str, torch.Tensor]
) -> None:
    """Of the gradients, exactly: no multiple of the mean log-odds' gradient is the loss's."""
    model = trained(encoding, batch, 6)

    def gradients(output: Any) -> torch.Tensor:
        rows = autograd_rows(model, output, batch).values()
        return torch.cat([one.flatten(1) for one in rows], 1)

    of_loss = gradients(lambda m, b: sequences.loss(m, b, 0.0))
    q = sequences.log_odds_weight(model, batch).detach()[:, None]
    stands = gradients(sequences.trained_log_odds)
    torch.testing.assert_close(q * stands, -of_loss, rtol=1e-3, atol=1e-6 * of_loss.abs().max())
    mean = gradients(sequences.log_odds)
    along = functional.cosine_similarity(mean, of_loss)
    assert along.min() > -0.999, "the mean would have done"


# --- what is generated ----------------------------------------------------------------------------


def generated(model: Any, batch: dict[str, torch.Tensor], end: int, longest: int) -> list[int]:
    """Greedy generation for a batch of one, by its definition."""
    ids = torch.zeros(1, 0, dtype=torch.int64)
    while ids.shape[1] < longest and (not ids.shape[1] or ids[0, -1] != end):
        given = torch.cat([ids, ids.new_zeros(1, 1)], 1)
        inputs = {**batch, "target_ids": given, "target_mask": torch.ones_like(given)}
        with torch.no_grad():
            ids = torch.cat([ids, sequences.logits(model, inputs)[:, -1:].argmax(-1)], 1)
    return ids[0].tolist()


@pytest.mark.parametrize("steps", [0, 4, 40])
def test_what_is_kept_is_greedy_generation(
    steps: int,
    batch: dict[str, torch.Tensor],
    arrays: dict[str, np.ndarray],
    encoding: dict[str, Any],
) -> None:
    """Of a model that knows nothing, something, and everything."""
    model = trained(encoding, batch, steps)
    record = sequences.record(model, batch)
    table = sequences.summarize({n: t.detach().numpy() for n, t in record.items()}, arrays, [])
    right = []
    for row in range(len(batch["label"])):
        one = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        wanted = generated(model, one, encoding["end"], encoding["max_target_tokens"])
        found = [int(token) for token in table["predicted"][row] if token >= 0]
        assert found == wanted
        target = [token for token in batch["label"][row].tolist() if token >= 0]
        right.append(wanted == target)
    assert table["correct"].tolist() == right
    assert all(right) == (steps == 40)
    likelihoods = sequences.log_likelihood(model, batch).detach().numpy()
    np.testing.assert_allclose(table["log_likelihood"], likelihoods, rtol=1e-4, atol=1e-5)


def test_answers_say_where_another_text_begins() -> None:
    leads = np.array([[2.0, 0.5, 1.0], [1.0, -0.1, -3.0], [-1.0, 2.0, 2.0]])
    own = np.zeros(3, np.int64)
    assert EXACT.answers(leads).tolist() == [0, 2, 1]
    assert EXACT.rivals(leads, own).tolist() == [2, 3, 1]
    assert EXACT.gaps(leads, own, EXACT.rivals(leads, own)).tolist() == [0.5, -3.0, -1.0]
    assert EXACT.names(np.array([0, 1, 2]), []) == [
        "the expected text",
        "another text",
        "another text from token 2 on",
    ]


def test_checkpoints_vote_on_tokens() -> None:
    one, two, three = ([[4, 5], [1, 1]], [[6, 7], [2, 2]], [[6, 7], [3, 3]])
    found = checkpoint_vote([np.array(each) for each in (one, two, three)])
    assert found.tolist() == [[6, 7], [1, 1]]


def test_checkpoints_that_generate_the_target_do_not_vote_on_what_is_instead() -> None:
    right, wrong = [[-1, -1], [-1, -1]], [[6, -1], [-1, -1]]
    found = checkpoint_vote([np.array(each) for each in (right, right, wrong)])
    assert found.tolist() == [[6, -1], [-1, -1]]


# --- beams ----------------------------------------------------------------------------------------


def every_text(
    following: Any, vocabulary: int, longest: int, end: int
) -> dict[tuple[int, ...], float]:
    """Each text and its log-likelihood, by trying all."""
    found, partial = {}, {(): 0.0}
    for _ in range(longest):
        going = {}
        for ids, score in partial.items():
            each = following(torch.tensor([[ids]], dtype=torch.int64).reshape(1, 1, -1))[0, 0]
            for token in range(vocabulary):
                to = found if token == end else going
                to[(*ids, token)] = score + float(each[token])
        partial = going
    return found | partial


def as_text(ids: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(token) for token in ids if token >= 0)


@pytest.mark.parametrize("end", [2, -1])
def test_beams_find_the_likeliest_of_all_texts(end: int) -> None:
    vocabulary, longest = 4, 4

    def following(ids: torch.Tensor) -> torch.Tensor:
        """Differs with the row and with every token before."""
        rows = []
        for row, texts in enumerate(ids.tolist()):
            for text in texts:
                seed = 7 * row + sum((token + 1) * 5**place for place, token in enumerate(text))
                rows.append(torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)))
        return torch.stack(rows).log_softmax(-1).unflatten(0, ids.shape[:2])

    texts, scores = beam_search(following, 2, 4**3, longest, torch.tensor(end))
    wanted = every_text(following, vocabulary, longest, end)
    ranked = sorted(wanted, key=lambda text: -wanted[text])[:20]
    assert [as_text(text) for text in texts[0, :20]] == ranked
    np.testing.assert_allclose(scores[0, :20], [wanted[text] for text in ranked], rtol=1e-5)
    assert not torch.equal(texts[0], texts[1])

    greedy, _ = beam_search(following, 2, 1, longest, torch.tensor(end))
    expected: list[int] = []
    while len(expected) < longest and expected[-1:] != [end]:
        step = following(torch.tensor([[expected]], dtype=torch.int64).reshape(1, 1, -1))
        expected.append(int(step[0, 0].argmax()))
    assert as_text(greedy[0, 0]) == tuple(expected)


def test_with_beams_a_wrong_prediction_is_the_likeliest_text_beside_the_target() -> None:
    options = Options(max_vocabulary=60, max_target_tokens=2, beams=60)
    encoding = plan_encoding(rows_of(), options, [])
    arrays = encode(list(rows_of()), options, encoding).arrays
    model = build_model("t5-small", {"layers": 1, "width": 16, "heads": 2}, encoding, 1, seed=0)
    batch = TASK.prepare({k: torch.from_numpy(v) for k, v in arrays.items()}, encoding)
    found = TASK.record(model.eval(), batch)["instead"]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    likelihood = {}
    for one in range(encoding["token_ids"]):
        every = range(encoding["token_ids"])
        texts = [[one]] if one == encoding["end"] else [[one, two] for two in every]
        ids = torch.tensor(texts)
        source = {name: tensor[:1].expand(len(ids), -1) for name, tensor in inputs.items()}
        other = {"target_ids": ids, "target_mask": torch.ones_like(ids), "label": ids}
        scores = sequences.log_likelihood(model, source | other).tolist()
        likelihood |= dict(zip(map(tuple, texts), scores, strict=True))
    target = as_text(torch.from_numpy(arrays["target_ids"][0]))
    del likelihood[target]
    first, second, *_ = sorted(likelihood, key=lambda text: -likelihood[text])
    assert as_text(found[0]) == first

    # Where the likeliest text is the target, it is the next one.
    label = torch.full((1, 2), sequences.IGNORED)
    label[0, : len(first)] = torch.tensor(first)
    asked = {name: tensor[:1] for name, tensor in batch.items()} | {"label": label}
    assert as_text(sequences._likeliest_other(model, asked, 2)[0]) in (second, target)


# --- folders of transformers ----------------------------------------------------------------------


def write_folder(folder: Path, kind: str) -> Path:
    """A tiny T5 or GPT-2 with the tokenizer of `PAIRS`."""
    import transformers as hf

    content = train_pieces((text for pair in PAIRS for text in pair), 60).content
    tokens = len(json.loads(content)["model"]["vocab"])
    if kind == "t5":
        config = hf.T5Config(
            vocab_size=tokens,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
        )
        model = hf.T5ForConditionalGeneration(config)
    else:
        config = hf.GPT2Config(
            vocab_size=tokens, n_embd=16, n_layer=1, n_head=2, n_positions=40, eos_token_id=1
        )
        model = hf.GPT2LMHeadModel(config)
        kept = json.loads(content)
        kept["post_processor"] = None  # its texts have no end of their own
        content = json.dumps(kept)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(content)
    settings = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unk>"}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_a_folder_gives_tokenizer_and_weights(kind: str, tmp_path: Path) -> None:
    """Its logits are those of the library's own model."""
    from engine import Study

    folder = write_folder(tmp_path / kind, kind)
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "test"):
        lines = [json.dumps({"question": a, "answer": b}) for a, b in PAIRS]
        (data / f"{split}.jsonl").write_text("\n".join(lines))
    spec = f"""
name = "Folder"
[data]
source = "{data}"
[task]
name = "text-to-text"
[algorithms.own]
architecture = "transformers:{folder}"
epochs = 1
batch_size = 2
learning_rate = 1e-12
checkpoints = 1
[subset_runs]
masks = 0
"""
    study = Study.create(tmp_path / "study", spec)
    study.build(workers=0)
    import transformers as hf

    library = hf.AutoModelForSeq2SeqLM if kind == "t5" else hf.AutoModelForCausalLM
    own = library.from_pretrained(folder).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    for row, (source, target) in enumerate(PAIRS):
        if kind == "t5":
            given = tokenizer(source, return_tensors="pt")
            labels = tokenizer(target, return_tensors="pt").input_ids
            loss = own(**given, labels=labels).loss * labels.numel()
        else:
            prompt = tokenizer(source).input_ids
            answer = [*tokenizer(" " + target).input_ids, 1]
            labels = torch.tensor([[-100] * len(prompt) + answer])
            loss = own(input_ids=torch.tensor([prompt + answer]), labels=labels).loss * len(answer)
        found = study.predictions("test")["log_likelihood"][row]
        assert found == pytest.approx(-float(loss), rel=1e-4)
