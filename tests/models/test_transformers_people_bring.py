"""Folders of transformers as people have them: read right, or refused in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.build.models import picture_notes
from engine.cli.main import main
from engine.exchange.uploads.header import read_header
from engine.exchange.uploads.match import match
from engine.models import build_model
from engine.models.calling import call
from engine.models.transformers_zoo import longest_input, transformers
from engine.store.errors import SpecError
from engine.store.spec import AlgorithmSpec, TaskSpec
from engine.tasks import TASKS, load_task, outside
from engine.tasks import settle as settle_task
from engine.tasks.text_options import Choice, Options, choice_of, settle
from engine.tasks.tokenizers import check_tokenizer, plan_tokens, train_wordpiece
from engine.training.pretrained import load_trained_folder, start_from_folder
from engine.training.weights import load_weights
from tests.builders.sentences import sentences
from tests.builders.tiny_bert import write_tiny_bert, write_tokenizer
from tests.models.test_checkpoints_people_bring import DATASET

ALGORITHM = AlgorithmSpec(architecture="transformers:bert")
CLASSES = ["bad", "good"]


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's folder with texts and a copy of the tiny BERT."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shutil.copytree(tiny_bert, tmp_path / "bert")
    (tmp_path / "texts").mkdir()
    sentences(12, 0).to_csv(tmp_path / "texts" / "train.csv", index=False)
    sentences(6, 1).to_csv(tmp_path / "texts" / "test.csv", index=False)
    return tmp_path


# --- refused -------------------------------------------------------------------------------------

TRAINED = 'weights = ["bert"]'


def spec(algorithm: str = "", task: str = "", more: str = "", name: str = "bert") -> str:
    return (
        f'name = "Texts"\n[data]\nsource = "texts"\n[task]\nname = "text-classification"\n{task}\n'
        f'[algorithms.tuned]\narchitecture = "transformers:{name}"\ncheckpoints = 1\n{algorithm}\n'
        f"{more}\n"
    )


def changed(file: str, **changes: Any) -> Callable[[Path], None]:
    """Change keys of a JSON file in the folder; None removes one."""

    def change(study: Path) -> None:
        path = study / "bert" / file
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return change


def written(file: str, content: str | bytes) -> Callable[[Path], None]:
    def write(study: Path) -> None:
        path = study / "bert" / file
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return write


def removed(*files: str) -> Callable[[Path], None]:
    def remove(study: Path) -> None:
        for file in files:
            (study / "bert" / file).unlink()

    return remove


def only_pickle(study: Path) -> None:
    (study / "bert" / "model.safetensors").rename(study / "bert" / "pytorch_model.bin")


def weights(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    def rewrite(study: Path) -> None:
        path = study / "bert" / "model.safetensors"
        save_file(change(load_file(path)), path, {"format": "pt"})

    return rewrite


def another_head(study: Path) -> None:
    write_tiny_bert(study / "bert", id2label={n: f"c{n}" for n in range(5)})


def another_tokenizer(study: Path) -> None:
    shutil.copytree(study / "bert", study / "other")
    write_tokenizer(study / "other", train_wordpiece(["quite other words", "here"], 60).content)


def huge(file: str) -> Callable[[Path], None]:
    return lambda study: os.truncate(study / "bert" / file, 33 * 2**20)


def large_id(study: Path) -> None:
    path = study / "bert" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["zz"] = 4_000_000_000
    path.write_text(json.dumps(content))


def index(**parts: str) -> Callable[[Path], None]:
    def write(study: Path) -> None:
        (study / "bert" / "model.safetensors").unlink()
        content = json.dumps({"weight_map": parts})
        (study / "bert" / "model.safetensors.index.json").write_text(content)

    return write


def empty_text(study: Path) -> None:
    with (study / "texts" / "train.csv").open("a") as file:
        file.write('" \t ",good\n')


def nothing(study: Path) -> None:
    """Leave the folder as it is."""


def nan(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"classifier.weight": torch.full_like(state["classifier.weight"], torch.nan)}


def without_layer(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if ".layer.1." not in name}


def without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if "classifier" not in name}


OTHER = '[algorithms.second]\narchitecture = "transformers:other"'
SMALL = '[algorithms.small]\narchitecture = "bert-small"'
REFUSED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no tokenizer": (removed("tokenizer.json"), spec(), "bert has no tokenizer"),
    "a tokenizer of more tokens than the model": (
        changed("config.json", vocab_size=50),
        spec(),
        "embeddings of 50 tokens, and the tokenizer has 1",
    ),
    "two tokenizers in one study": (another_tokenizer, spec(more=OTHER), "differs from the study"),
    "the study's tokenizer is another one": (
        another_tokenizer,
        spec(task='tokenizer = "other"'),
        "bert differs from the study's",
    ),
    "words for a tokenizer's model": (
        nothing,
        spec(task='tokenizer = "words"'),
        "texts are split into words: remove `tokenizer`",
    ),
    "words for bert-small": (
        nothing,
        spec(task='tokenizer = "words"').replace("transformers:bert", "bert-small"),
        'set tokenizer = "wordpiece"',
    ),
    "code asked for by the config": (
        changed("config.json", auto_map={"AutoConfig": "code.Config"}),
        spec(),
        "asks for code of its own",
    ),
    "code asked for by the tokenizer": (
        changed("tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Fast", None]}),
        spec(),
        "asks for code of its own",
    ),
    "no room for a word": (nothing, spec(task="max_tokens = 2"), "adds 2 special tokens"),
    "a text that is empty": (empty_text, spec(), "'train-12': .* is empty after tokenizing"),
    "weights of another head": (
        another_head,
        spec(TRAINED),
        "a head of 5 outputs where this study needs 2",
    ),
    "weights without a head": (weights(without_head), spec(TRAINED), "not trained to classify"),
    "weights that lack a layer": (weights(without_layer), spec(), "does not fit its own config"),
    "weights with NaN": (weights(nan), spec(TRAINED), "'classifier.weight' holds NaN"),
    "a start with NaN": (weights(nan), spec(), "'classifier.weight' holds NaN"),
    "weights that are cut short": (
        lambda study: os.truncate(study / "bert" / "model.safetensors", 5000),
        spec(TRAINED),
        "cannot be read",
    ),
    "only a pickle": (only_pickle, spec(TRAINED), "a pickle, which could run code"),
    "a start that is a pickle": (only_pickle, spec(), "a pickle, which could run code"),
    "no weights": (removed("model.safetensors"), spec(TRAINED), "bert has no weights"),
    "a part that is missing": (
        index(a="model-00001-of-00002.safetensors"),
        spec(TRAINED),
        "names the part model-00001-of-00002.safetensors, which is missing",
    ),
    "a part elsewhere": (index(a="../x.safetensors"), spec(), "no safetensors file beside it"),
    "no config": (removed("config.json"), spec(), "bert has no config.json"),
    "a config that is cut short": (written("config.json", '{"model'), spec(), "is not JSON"),
    "a config that is a list": (written("config.json", "[]"), spec(), "not a JSON object"),
    "a config in bytes": (written("config.json", b"\xff\xfe\x00"), spec(), "is not JSON"),
    "a config of no model": (written("config.json", "{}"), spec(), "names no model_type"),
    "a config of an unknown model": (
        changed("config.json", model_type="nonesuch"),
        spec(),
        "no model_type 'nonesuch'",
    ),
    "a config that does not add up": (
        changed("config.json", num_attention_heads=3),
        spec(),
        "its config.json cannot be used",
    ),
    "a config with a text for a number": (
        changed("config.json", hidden_size="wide"),
        spec(),
        "cannot be read: .*'hidden_size'",
    ),
    "a quantized model": (
        changed("config.json", quantization_config={"bits": 4}),
        spec(),
        "describes a quantized model",
    ),
    "a tokenizer that is cut short": (written("tokenizer.json", '{"v'), spec(), "is not JSON"),
    "a tokenizer of another kind": (written("tokenizer.json", "{}"), spec(), "cannot be read"),
    "tokenizer settings that are damaged": (
        written("tokenizer_config.json", "x"),
        spec(),
        "is not JSON",
    ),
    "a tokenizer of 33 MiB": (huge("tokenizer.json"), spec(), "has 33 MiB; a tokenizer of at most"),
    "a vocabulary of 33 MiB": (
        lambda study: (written("vocab.txt", "a")(study), huge("vocab.txt")(study)),
        spec(),
        "has 33 MiB",
    ),
    "a tokenizer of deep brackets": (
        written("tokenizer.json", "[" * 100_000),
        spec(),
        "is not JSON",
    ),
    "an id of four billion": (large_id, spec(), "has the number 4000000000"),
    "an id below zero": (
        changed("tokenizer.json", added_tokens=[{"id": -1, "content": "a"}]),
        spec(),
        "has the number -1",
    ),
    "T5, which writes texts": (
        changed("config.json", model_type="t5", architectures=["T5ForConditionalGeneration"]),
        spec(),
        "is a T5ForConditionalGeneration",
    ),
    "CLIP, which compares": (
        changed("config.json", model_type="clip", architectures=["CLIPModel"]),
        spec(),
        r"is a CLIPModel \(clip\), which does not classify texts",
    ),
    "ViT, which sees": (
        changed("config.json", model_type="vit", architectures=["ViTModel"]),
        spec(),
        "does not classify texts",
    ),
    "an adapter": (
        lambda study: (
            removed("config.json")(study),
            written("adapter_config.json", "{}")(study),
        ),
        spec(),
        "holds an adapter",
    ),
    "a folder that is missing": (nothing, spec(name="./nowhere"), "nowhere does not exist"),
    "a file for a folder": (nothing, spec(name="texts/train.csv"), "is a file. Name the folder"),
    "a hub name, offline": (nothing, spec(name="owner/nonesuch"), "hub could not give"),
    "a part that starts fresh, unknown": (nothing, spec('reset = ["fc"]'), "names no part"),
    "more blocks than there are": (nothing, spec('train = "last-9"'), "the model has 2 blocks"),
    "a part that is no part": (nothing, spec('train = "tail"'), "algorithms.tuned.train"),
    "a recipe from what is trained": (
        nothing,
        spec(TRAINED + "\nepochs = 3"),
        "cannot be trained again from 'bert'",
    ),
    "the same checkpoint twice": (
        lambda study: shutil.copytree(study / "bert", study / "copy"),
        spec('weights = ["bert", "copy"]'),
        "copy holds the same weights as bert",
    ),
    "an option that is none": (
        nothing,
        spec("architecture_options = { study = 1 }"),
        "has no option 'study'",
    ),
    "heads that do not divide": (
        nothing,
        spec("architecture_options = { width = 10 }").replace("transformers:bert", "bert-small"),
        "4 heads do not divide a width of 10",
    ),
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, text, pattern = REFUSED[case]
    change(study)
    (study / "study.toml").write_text(text)
    assert main(["build", str(study), "--workers", "0"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(pattern, line), line


# --- read ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoding(tiny_bert: Path) -> dict[str, Any]:
    """An encoding by the tiny BERT's tokenizer."""
    choice = Choice("folder", "bert", tiny_bert, (tiny_bert,))
    texts = [[(text, str(row)) for row, text in enumerate(sentences(12, 0)["text"])]]
    return plan_tokens(choice, Options(), texts)


def classifier(folder: Path, encoding: dict[str, Any], classes: int = 2) -> nn.Module:
    return build_model(f"transformers:{folder}", {}, encoding, classes, 5)


def saved(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def as_it_is(folder: Path) -> None:
    """Hugging Face's own names, in one file."""


def in_parts(folder: Path) -> None:
    state = saved(folder)
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2]}
    parts["model-00002-of-00002.safetensors"] = names[1::2]
    for part, some in parts.items():
        save_file({name: state[name] for name in some}, folder / part, {"format": "pt"})
    index = {name: part for part, some in parts.items() for name in some}
    (folder / "model.safetensors").unlink()
    content = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(content)


def in_float16(folder: Path) -> None:
    state = {name: tensor.half() for name, tensor in saved(folder).items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def with_old_names(folder: Path) -> None:
    """LayerNorm's gamma and beta, as in the first BERTs."""
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta"): one
        for name, one in saved(folder).items()
    }
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def with_positions(folder: Path) -> None:
    """A buffer that older versions saved."""
    state = saved(folder) | {"bert.embeddings.position_ids": torch.arange(40)[None]}
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def without_settings(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()


@pytest.mark.input_case
@pytest.mark.parametrize(
    "change",
    [as_it_is, in_parts, in_float16, with_old_names, with_positions, without_settings],
    ids=lambda change: change.__name__.replace("_", " "),
)
def test_a_fine_tuned_folder_gives_the_logits_of_transformers(
    change: Callable[[Path], None], study: Path, encoding: dict[str, Any]
) -> None:
    folder = study / "bert"
    library = transformers("a test")
    reference = library.BertForSequenceClassification.from_pretrained(folder).eval()
    change(folder)
    model = classifier(folder, encoding)
    load_trained_folder(folder, model, ["negative", "positive"])
    rows = [{"input": text, "label": 0, "id": "x"} for text in ("the cook loved it", "mocked")]
    task = load_task("text-classification")
    raw = task.encode(rows, Options(), encoding).arrays
    batch = task.prepare({name: torch.from_numpy(array) for name, array in raw.items()}, encoding)
    padded = library.AutoTokenizer.from_pretrained(study / "bert")(
        [row["input"] for row in rows], padding=True, return_tensors="pt"
    )
    assert torch.equal(batch["input_ids"], padded["input_ids"])
    assert torch.equal(batch["attention_mask"], padded["attention_mask"])
    found = call(model, batch).logits
    tolerance = 1e-2 if change is in_float16 else 1e-6
    torch.testing.assert_close(found, reference(**padded).logits, rtol=tolerance, atol=tolerance)
    check_tokenizer(folder, encoding, "bert")


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("change", "fresh"),
    [
        (another_head, {"classifier"}),
        (weights(without_head), {"classifier"}),
        (
            weights(
                lambda state: {
                    name.removeprefix("bert."): tensor
                    for name, tensor in state.items()
                    if name.startswith("bert.")
                }
            ),
            {"classifier"},
        ),
        (
            weights(
                lambda state: (
                    {name: tensor for name, tensor in state.items() if name.startswith("bert.e")}
                    | {"cls.predictions.bias": torch.zeros(9)}
                )
            ),
            {"bert.pooler.dense", "classifier"},
        ),
    ],
    ids=["another head", "no head", "the base model alone", "a masked language model"],
)
def test_training_starts_from_what_the_folder_has(
    change: Callable[[Path], None], fresh: set[str], study: Path, encoding: dict[str, Any]
) -> None:
    change(study)
    model = classifier(study / "bert", encoding)
    seeded = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _, *notes = start_from_folder(study / "bert", model, CLASSES)
    assert re.match(f"{', '.join(sorted(fresh))} starts? from a fresh", notes[0]), notes
    theirs = {name.removeprefix("bert."): one for name, one in saved(study / "bert").items()}
    for name, tensor in model.state_dict().items():
        if name.rpartition(".")[0] in fresh:
            assert torch.equal(tensor, seeded[name])
        else:
            assert torch.equal(tensor, theirs[name.removeprefix("bert.")]), name


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (["bad", "good"], None),
        (["Good", "BAD"], "were put into the order"),
        (["LABEL_0", "LABEL_1"], None),
        (["NEG", "POS"], "taken as this study's classes in order: NEG = bad, POS = good"),
    ],
    ids=["the same", "another order", "no names", "other names"],
)
def test_outputs_are_in_the_order_of_the_classes(
    labels: list[str], note: str | None, study: Path, encoding: dict[str, Any]
) -> None:
    write_tiny_bert(study / "bert", id2label=dict(enumerate(labels)))
    model = classifier(study / "bert", encoding)
    notes = load_trained_folder(study / "bert", model, CLASSES)
    assert [note for found in notes if note and note in found] == ([note] if note else [])
    assert len(notes) == (note is not None)
    head = saved(study / "bert")["classifier.weight"]
    turned = labels == ["Good", "BAD"]
    assert torch.equal(model.classifier.weight, head.flip(0) if turned else head)


@pytest.mark.input_case
def test_texts_that_are_too_long_are_cut_and_said(study: Path) -> None:
    long = "the cook loved the soup " * 20
    rows = datasets.Dataset.from_dict({"input": [long, "a sailor"], "id": ["0", "1"]})
    options = settle(Options(max_tokens=500), {"a": ALGORITHM}, study)
    task = load_task("text-classification")
    encoding = task.plan_encoding(rows, options, CLASSES)
    assert encoding["max_tokens"] == 40  # what the model takes
    examples = [{**row, "label": 0} for row in rows]
    arrays = task.encode(examples, options, encoding).arrays
    assert arrays["length"].tolist() == [102, 4]
    notes = task.remarks(rows, encoding, {"train": [arrays], "test": [arrays]}).warnings
    assert "50.0% of the train and 50.0% of the test texts are cut" in notes[0]
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    prepared = task.prepare(batch, encoding)
    assert prepared["attention_mask"].sum(1).tolist() == [40, 4]
    call(classifier(study / "bert", encoding), prepared)
    only = task.prepare({name: tensor[1:] for name, tensor in batch.items()}, encoding)
    assert only["input_ids"].shape == (1, 4)  # trimmed to the longest of the batch
    assert "first 40 of 102 tokens" in task.accept({"text": long}, options, encoding).notes[0]


@pytest.mark.parametrize("name", [name for name in TASKS if name.startswith("text-")])
def test_every_task_of_texts_takes_the_tokenizer_of_its_models(name: str, study: Path) -> None:
    options = load_task(name).options()
    assert choice_of(options).kind == "words"
    settled = settle_task(name, options, {"a": ALGORITHM}, study)
    assert choice_of(settled) == Choice("folder", "bert", study / "bert", (study / "bert",))
    architecture, kind = ("bert-small", "wordpiece")
    if name == "text-to-text":
        architecture, kind = ("t5-small", "pieces")
    small = {"a": AlgorithmSpec(architecture=architecture)}
    assert choice_of(settle_task(name, options, small, study)).kind == kind
    spec = TaskSpec(name=name)
    assert outside(spec, {"a": AlgorithmSpec()}, study, None) == []
    assert outside(spec, small, study, None) == ([kind] if kind == "wordpiece" else [])
    (digest,) = outside(spec, {"a": ALGORITHM}, study, None)
    shutil.rmtree(study / "bert")
    known = {"tokenizer_files": digest}
    assert outside(spec, {"a": ALGORITHM}, study, known) == [digest]


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("kind", "most"),
    [("bert", 512), ("roberta", 510), ("distilbert", 512), ("gpt2", 512), ("xlm-roberta", 510)],
)
def test_the_longest_input_of_an_architecture(kind: str, most: int) -> None:
    sizes = {"n_positions": 512} if kind == "gpt2" else {"max_position_embeddings": 512}
    small = {"vocab_size": 30, "num_hidden_layers": 1, "n_layer": 1, "n_layers": 1}
    assert longest_input({"model_type": kind, **sizes, **small}, kind) == most


def test_an_upload_with_a_tied_tensor_left_out_is_matched_and_filled(
    study: Path, encoding: dict[str, Any]
) -> None:
    """BART's encoder, decoder and shared embeddings are one tensor, which is saved once."""
    library = transformers("a test")
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 200}
    sizes |= {"encoder_attention_heads": 1, "decoder_attention_heads": 1}
    sizes |= {"encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "max_position_embeddings": 40}
    config = library.BartConfig(**sizes, pad_token_id=0, eos_token_id=3, num_labels=2)
    reference = library.BartForSequenceClassification(config)
    reference.save_pretrained(study / "bart")
    path = study / "bart" / "model.safetensors"
    algorithm = AlgorithmSpec(architecture=f"transformers:{study / 'bart'}")
    dataset = replace(DATASET, classes=CLASSES, width=2, encoding=encoding)
    assert (
        not {"model.encoder.embed_tokens.weight", "model.shared.weight"}
        <= saved(study / "bart").keys()
    )
    matched = match(read_header(path, "mine", 2**20), "mine", dataset, {"a": algorithm})
    assert matched.name == algorithm.architecture
    model = build_model(matched.name, {}, encoding, 2, 0)
    load_weights(path, model)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_a_model_of_pictures_reads_an_image_study(study: Path) -> None:
    library = transformers("a test")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = library.ViTConfig(**sizes, intermediate_size=8, image_size=8, patch_size=4)
    library.ViTForImageClassification(config).save_pretrained(study / "vit")
    (study / "vit" / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    pictures: dict[str, Any] = {"shape": [3, 8, 8], "mean": [0.1] * 3, "std": [0.5] * 3}
    model = classifier(study / "vit", pictures, classes=4)
    embeddings, answer = model.embed_and_answer(torch.zeros(2, 3, 8, 8))
    assert answer.logits.shape == (2, 4)
    assert embeddings.shape == (2, 8)
    assert (
        "trained on pictures with mean = [0.5, 0.5, 0.5]"
        in picture_notes(study / "vit", pictures)[0]
    )
    with pytest.raises(SpecError, match=r"cannot take pictures of \[3, 9, 9\].*image_size"):
        classifier(study / "vit", {"shape": [3, 9, 9]})
    with pytest.raises(SpecError, match="does not classify pictures"):
        classifier(study / "bert", pictures)
