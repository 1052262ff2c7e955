"""Data and models of pairs that people bring: read right, or refused in one line."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from PIL import Image

from engine.data.sources import Source, load_source
from engine.store.errors import DataError, SpecError
from engine.store.spec import AlgorithmSpec, DataSpec
from engine.tasks import outside, settle
from engine.tasks.image_text import TASK, Options
from tests.builders.pairs import write_pairs

Rows = list[dict[str, Any]]


def png(color: int, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (color, 90, 200 - color)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(n: int = 8) -> Rows:
    return [{"file": f"{i}.png", "caption": f"picture number {i}"} for i in range(n)]


def folder_of(root: Path, train: Rows, test: Rows | None = None) -> Path:
    """Pictures 0.png to 9.png, and tables that name them."""
    for i in range(10):
        (root / f"{i}.png").write_bytes(png(20 * i))
    for split, found in (("train", train), ("test", rows(3) if test is None else test)):
        pd.DataFrame(found).to_csv(root / f"{split}.csv", index=False)
    return root


def read(source: Path, **options: Any) -> tuple[Source, dict[str, Any], dict[str, Any]]:
    """The source, the encoding, and what encoding both splits gave."""
    chosen = Options(**options)
    found = load_source(DataSpec(source=str(source)), source.parent, kind="none")
    encoding = TASK.plan_encoding(found.train, chosen, [])
    encoded = {
        split: TASK.encode([dict(one) for one in part], chosen, encoding)
        for split, part in (("train", found.train), ("test", found.test))
    }
    shards = {split: [one.arrays] for split, one in encoded.items()}
    return found, encoding, {**encoded, "remarks": TASK.remarks(found.test, encoding, shards)}


def with_row(number: int, **changes: Any) -> Rows:
    found = rows()
    found[number] |= changes
    return found


REFUSED: dict[str, tuple[Rows, dict[str, Any], str]] = {
    "missing caption": (with_row(3, caption=None), {}, r"'train-3': the caption is missing"),
    "empty caption": (with_row(3, caption="  "), {}, r"'train-3': the caption is empty"),
    "no words": (with_row(2, caption="…"), {}, r"'train-2': the text '…' has no words"),
    "missing file": (with_row(4, file="gone.png"), {}, r"'gone.png'|gone\.png"),
    "no file name": (with_row(4, file=None), {}, r"train-4|no picture|missing"),
    "all captions alike": (
        [{**one, "caption": "a picture"} for one in rows()],
        {},
        "All training pairs have the caption 'a picture'",
    ),
    "unknown column": (rows(), {"caption": "title"}, "no column 'title' of captions"),
    "two columns of texts": (
        [{"file": one["file"], "what": "a b c", "where": f"d {i}"} for i, one in enumerate(rows())],
        {},
        r"2 columns fit \(what, where\) as captions.*`caption` under \[task\]",
    ),
    "numbers as captions": (
        [{**one, "caption": i} for i, one in enumerate(rows())],
        {"caption": "caption"},
        "a caption was expected and int was found",
    ),
    "no caption at all": (
        [{"file": one["file"], "size": i} for i, one in enumerate(rows())],
        {},
        "No column fits as captions",
    ),
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", REFUSED)
def test_wrong_pairs_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    train, options, message = REFUSED[case]
    test = [{name: one[name] for name in train[0]} for one in train[:3]]
    with pytest.raises(DataError, match=message) as error:
        read(folder_of(tmp_path, train, test), **options)
    assert "\n" not in str(error.value)


SAID: dict[str, tuple[Rows, dict[str, Any], str]] = {
    "duplicate": ([*rows(), rows()[2]], {}, "1 training pair of 9 repeat"),
    "shared caption": (
        [*rows(), {"file": "9.png", "caption": "picture number 2"}],
        {},
        "1 training pairs have the caption of another",
    ),
    "two captions": (
        [*rows(), {"file": "2.png", "caption": "another text"}],
        {},
        "1 training pairs have the picture of another",
    ),
    "in both splits": (rows(), {}, "3 test pairs of 3 occur in the training split"),
    "too long": (with_row(1, caption="word " * 30), {"max_tokens": 20}, "first 20 words"),
    "usual name": (
        [{**one, "notes": f"taken by {i}"} for i, one in enumerate(rows())],
        {},
        "Captions are the column 'caption'",
    ),
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", SAID)
def test_what_is_odd_about_pairs_is_said(case: str, tmp_path: Path) -> None:
    train, options, message = SAID[case]
    test = [{name: one[name] for name in train[0]} for one in train[:3]]
    _, _, found = read(folder_of(tmp_path, train, test), **options)
    said = [*found["remarks"].notes, *found["remarks"].warnings]
    assert any(message in one for one in said), said


def hub_layout(root: Path) -> Path:
    """Parquet with the image feature of Hugging Face's library, and lists of captions."""
    features = datasets.Features(
        {"image": datasets.Image(), "captions": datasets.List(datasets.Value("string"))}
    )
    for split, n in (("train", 8), ("test", 3)):
        content = {
            "image": [{"bytes": png(20 * i), "path": None} for i in range(n)],
            "captions": [[f"picture number {i}", "in other words"] for i in range(n)],
        }
        datasets.Dataset.from_dict(content, features).to_parquet(root / f"{split}.parquet")
    return root


def image_folder_layout(root: Path) -> Path:
    """The layout of `imagefolder`: pictures and metadata.csv in the folder of each split."""
    for split, n in (("train", 8), ("test", 3)):
        (root / split).mkdir()
        for i in range(n):
            (root / split / f"{i}.png").write_bytes(png(20 * i))
        table = pd.DataFrame(
            {
                "file_name": [f"{i}.png" for i in range(n)],
                "text": [f"picture number {i}" for i in range(n)],
            }
        )
        table.to_csv(root / split / "metadata.csv", index=False)
    return root


def json_layout(root: Path) -> Path:
    for split, n in (("train", 8), ("test", 3)):
        folder_of(root, rows())
        (root / f"{split}.csv").unlink()
        pd.DataFrame(rows(n)).to_json(root / f"{split}.jsonl", orient="records", lines=True)
    for path in root.glob("*.csv"):
        path.unlink()
    return root


def column_named_label(root: Path) -> Path:
    table = [{"file": one["file"], "label": one["caption"]} for one in rows()]
    return folder_of(root, table, table[:3])


LAYOUTS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "csv": (lambda root: folder_of(root, rows()), {}),
    "jsonl": (json_layout, {}),
    "hub parquet": (hub_layout, {}),
    "imagefolder": (image_folder_layout, {}),
    "column named label": (column_named_label, {"caption": "label"}),
}


@pytest.mark.input_case
@pytest.mark.parametrize("case", LAYOUTS)
def test_pairs_are_read_from_usual_layouts(case: str, tmp_path: Path) -> None:
    write, options = LAYOUTS[case]
    source, encoding, found = read(write(tmp_path), **options)
    assert (len(source.train), len(source.test)) == (8, 3)
    assert found["train"].columns["text"] == [f"picture number {i}" for i in range(8)]
    assert [one.getpixel((0, 0))[0] for one in found["train"].thumbnails] == [
        20 * i for i in range(8)
    ]
    arrays = found["train"].arrays
    assert len({*arrays["picture_key"].tolist()}) == len({*arrays["caption_key"].tolist()}) == 8
    assert encoding["answer"] == "pairs"


def test_equal_pictures_and_captions_have_equal_keys(tmp_path: Path) -> None:
    _, _, found = read(write_pairs(tmp_path / "shapes", 40, 10))
    arrays, texts = found["train"].arrays, found["train"].columns["text"]
    for i in range(40):
        for j in range(i):
            same = (arrays["input"][i] == arrays["input"][j]).all()
            assert same == (arrays["picture_key"][i] == arrays["picture_key"][j])
            assert (texts[i] == texts[j]) == (arrays["caption_key"][i] == arrays["caption_key"][j])


# --- models ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights as transformers saves it: config, tokenizer, processor."""
    import json

    import tokenizers as tk
    import transformers as hf

    folder = tmp_path_factory.mktemp("clip")
    words = ["<pad>", "<start>", "<end>", "<unk>", "picture", "number", *map(str, range(10))]
    made = tk.Tokenizer(
        tk.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    made.pre_tokenizer = tk.pre_tokenizers.Whitespace()
    made.post_processor = tk.processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    hf.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unk>",
        model_max_length=12,
    ).save_pretrained(folder)
    sides = {
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 6,
    }
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = hf.CLIPConfig(
        text_config={**sides, "vocab_size": 16, "max_position_embeddings": 12, **special},
        vision_config={**sides, "image_size": 12, "patch_size": 6},
        projection_dim=6,
    )
    hf.CLIPModel(config).save_pretrained(folder)
    settings = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_a_folder_of_clip_is_read_as_saved(clip_folder: Path, tmp_path: Path) -> None:
    """Its tokenizer reads captions, its processor's numbers scale pictures, its weights train."""
    import torch
    import transformers as hf

    from engine.models import build_model
    from engine.models.pairs import pairs_of
    from engine.training.pretrained import start_from_folder

    algorithms = {"clip": AlgorithmSpec(architecture=f"transformers:{clip_folder}")}
    options = settle("image-text", Options(), algorithms, tmp_path)
    source = load_source(DataSpec(source=str(folder_of(tmp_path, rows()))), tmp_path, kind="none")
    encoding = TASK.plan_encoding(source.train, options, [])
    assert (encoding["shape"], encoding["mean"]) == ([3, 12, 12], [0.48, 0.46, 0.41])
    encoded = TASK.encode([dict(one) for one in source.train], options, encoding)
    assert encoded.arrays["input_ids"][3].tolist() == [1, 4, 5, 9, 2]
    shards = {split: [encoded.arrays] for split in ("train", "test")}
    notes = TASK.remarks(source.test, encoding, shards).notes
    assert any("From the folder of the model: image_size = 12" in note for note in notes)
    model = build_model(f"transformers:{clip_folder}", {}, encoding, 1, seed=0)
    start_from_folder(clip_folder, model, [])
    raw = {name: torch.from_numpy(array) for name, array in encoded.arrays.items()}
    batch = TASK.prepare(raw, encoding)
    inputs = {name: batch[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    with torch.no_grad():
        found = pairs_of(model(**inputs))
        wanted = hf.CLIPModel.from_pretrained(clip_folder).eval()(**inputs)
    torch.testing.assert_close(found.pictures, wanted.image_embeds)
    torch.testing.assert_close(found.captions, wanted.text_embeds)
    scaled = found.scale * found.pictures @ found.captions.T
    torch.testing.assert_close(scaled, wanted.logits_per_image)
    assert outside(_spec(), algorithms, tmp_path, None) == outside(
        _spec(), {"clip": AlgorithmSpec(architecture="transformers:gone")}, tmp_path, encoding
    )


def _spec() -> Any:
    from engine.store.spec import TaskSpec

    return TaskSpec(name="image-text")


def test_a_folder_of_another_model_is_refused(clip_folder: Path, tiny_bert: Path) -> None:
    from engine.models.hf_folder import read_config
    from engine.models.transformers_zoo import build_transformer

    encoding = {"answer": "pairs", "shape": [3, 12, 12], "token_ids": 16, "max_tokens": 6}
    with pytest.raises(SpecError, match="a model such as CLIP is needed"):
        build_transformer(read_config(tiny_bert), encoding, 1, "bert")
    config = read_config(clip_folder)
    with pytest.raises(SpecError, match="set max_tokens = 12"):
        build_transformer(config, {**encoding, "max_tokens": 20}, 1, "clip")
    with pytest.raises(SpecError, match="belongs to another model"):
        build_transformer(config, {**encoding, "token_ids": 99}, 1, "clip")
    words = {key: value for key, value in encoding.items() if key != "token_ids"}
    with pytest.raises(SpecError, match="captions are split into words"):
        build_transformer(config, words, 1, "clip")
