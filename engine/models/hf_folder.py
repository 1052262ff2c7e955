"""The folder in which Hugging Face's libraries save a model: found, and read as far as JSON goes.

    config.json                                    the architecture
    model.safetensors                              the weights, or
    model.safetensors.index.json, model-00001-of-…   the weights in parts
    tokenizer.json, tokenizer_config.json, …       the tokenizer

Diffusers calls the weights diffusion_pytorch_model, and saves a pipeline as a folder with the model
in unet/ and its noising process in scheduler/scheduler_config.json.

Nothing of it is trusted: no code of a folder is run, and no pickle is read. Importing this module
imports neither torch nor these libraries.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.store import file_digest, fingerprint_of, layout
from engine.store.cache import FileCache
from engine.store.errors import CheckpointError, SpecError, StoreError
from engine.store.files import read_json
from engine.store.walk import paths_in

TRANSFORMERS, DIFFUSERS = "transformers", "diffusers"
_KINDS = {TRANSFORMERS: "model_type", DIFFUSERS: "_class_name"}
"""Library → the key of its config.json that says what the model is."""
CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
_STEMS = ("diffusion_pytorch_model", "model")
"""What a file of weights is called, in diffusers and in transformers."""
_PART = "unet"
"""The model's folder in a pipeline of diffusers."""
SCHEDULER = "scheduler_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_VOCABULARIES = (TOKENIZER, *TOKENIZER_FILES[4:])
"""Files one of which every tokenizer has."""
_DOWNLOADED = ("*.json", "*.txt", "*.model", "model*.safetensors")
_PICKLES = ("pytorch_model*.bin", "diffusion_pytorch_model*.bin", "*.pt", "*.pth")
_MAX_JSON = 4 * 2**20
_MAX_TOKENIZER = 32 * 2**20
"""Largest tokenizer.json: it becomes part of the study."""
_MAX_TOKENS = 4_000_000
"""The largest vocabularies have 260,000."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_MAY_DOWNLOAD = "DATALOUPE_MAY_DOWNLOAD"
_LABELS = ("id2label", "label2id", "num_labels", "problem_type")
"""Keys of a config that say what its outputs are called."""


def folder_of(architecture: str) -> tuple[str, str] | None:
    """(library, FOLDER) of `transformers:FOLDER` and `diffusers:FOLDER`; None for any other."""
    library, _, name = architecture.partition(":")
    return (library, name) if library in _KINDS and name else None


def name_of(architecture: str, library: str = TRANSFORMERS) -> str | None:
    """FOLDER of `transformers:FOLDER`, or of another library; None for any other architecture."""
    found = folder_of(architecture)
    return found[1] if found is not None and found[0] == library else None


def reason_of(error: Exception) -> str:
    """What an exception of another library says, as a part of one line."""
    text = " ".join(str(error).split())
    return (text[:160] or type(error).__name__).rstrip(".")


def allow_downloads() -> None:
    """Let this process and its workers download what a study names on the hub."""
    os.environ[_MAY_DOWNLOAD] = "1"


def find_folder(name: str, study: Path | None, library: str = TRANSFORMERS) -> Path:
    """The folder that a study names, or a copy of what it names on the Hugging Face hub.

    Args:
        name: A path, relative to the study's folder, or a hub name such as `owner/name`.
        study: The study's folder.
        library: Models of diffusers are only taken from folders.

    Raises:
        SpecError: There is no such folder, and it is no hub name that can be read.
    """
    path = (study or Path()) / Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise SpecError(f"{path} is a file. Name the folder that holds its config.json.")
    if library != TRANSFORMERS or not _HUB_NAME.fullmatch(name) or ".." in name:
        raise SpecError(
            f"the folder {path} does not exist. Correct the path, which is relative to the study's "
            "folder, or put the model there."
        )
    return _from_hub(name, path)


def _from_hub(name: str, path: Path) -> Path:
    from huggingface_hub import snapshot_download

    def snapshot(local: bool) -> Path:
        found = snapshot_download(name, allow_patterns=list(_DOWNLOADED), local_files_only=local)
        return Path(found)

    try:
        return snapshot(local=True)
    except Exception:  # it is not in the cache, or not a name that the library takes
        pass
    if os.environ.get(_MAY_DOWNLOAD) != "1":
        raise SpecError(
            f"{path} does not exist, and {name!r} of the Hugging Face hub was not downloaded to "
            "this machine. `dataloupe build` on the command line downloads it; or copy the folder."
        )
    try:
        return snapshot(local=False)
    except Exception as error:  # network, access and format errors of three libraries
        reason = reason_of(error)
        raise SpecError(
            f"{path} does not exist, and the Hugging Face hub could not give {name!r}: {reason}. "
            "Download it where there is a network, and name its folder."
        ) from error


def library_named(library: str, what: str) -> Any:
    """The package, imported.

    Raises:
        SpecError: It is not installed; `what` needs it.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise SpecError(
            f"{what} needs {library}, which cannot be imported ({error}): "
            f"`pip install 'dataloupe[{library}]'`."
        ) from error


# --- config.json ---------------------------------------------------------------------------------


def stored_config(library: str, name: str, study: Path | None) -> dict[str, Any]:
    """The config of the models that a study has made, else that of the folder.

    Raises:
        SpecError: There is neither, or it cannot be used.
    """
    for path in layout.architecture_files(study) if study is not None else ():
        try:
            found = read_json(path)
        except StoreError:  # `dataloupe doctor` says so
            continue
        if found["name"] == name:
            return checked_config(found["config"], path, library)
    return read_config(find_folder(name, study, library), library)


def read_config(folder: Path, library: str = TRANSFORMERS) -> dict[str, Any]:
    """The content of a folder's config.json, checked.

    Raises:
        SpecError: There is none, it is damaged, or it asks for what is never done.
    """
    content, path = _content_of(folder)
    return checked_config(content, path, library)


def model_part(folder: Path) -> Path:
    """The folder itself, or the one of the model in a pipeline of diffusers."""
    part = folder / _PART
    return part if not (folder / CONFIG).is_file() and (part / CONFIG).is_file() else folder


def _content_of(folder: Path) -> tuple[dict[str, Any], Path]:
    """What is in a folder's config.json, and its path."""
    path = model_part(folder) / CONFIG
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise SpecError(
                f"{folder} holds an adapter (such as LoRA) without its model. Merge them "
                "(`merge_and_unload`), and save the whole model."
            )
        raise SpecError(f"{folder} has no {CONFIG}. Save the model with `save_pretrained`.")
    return _read_json(path), path


def checked_config(config: Mapping[str, Any], where: Path, library: str) -> dict[str, Any]:
    """A config that asks for nothing that is never done. Raises as `read_config`."""
    if "auto_map" in config:
        raise SpecError(
            f"{where} asks for code of its own (auto_map), which is never run. Take a model whose "
            f"architecture is part of {library}, or write it as python:module:function."
        )
    if config.get("quantization_config"):
        raise SpecError(
            f"{where} describes a quantized model, whose weights have no gradients. Take the model "
            "from before quantization."
        )
    if not isinstance(config.get(_KINDS[library]), str):
        raise SpecError(
            f"{where} names no {_KINDS[library]}, so it does not describe a model of {library}. "
            "Save the model with `save_pretrained`."
        )
    return dict(config)


def read_scheduler(folder: Path) -> dict[str, Any] | None:
    """The noising process of a model of diffusers, as its scheduler's config; None if not saved."""
    part = model_part(folder)
    outer = part.parent if part.name == _PART else folder
    for path in (part / SCHEDULER, outer / "scheduler" / SCHEDULER):
        if path.is_file():
            return _read_json(path)
    return None


def preprocessing_of(folder: Path) -> dict[str, list[float]] | None:
    """`mean` and `std` of each channel that a model of pictures expects; None if not said."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return None
    content = _read_json(path)
    found = {key: content.get(f"image_{key}") for key in ("mean", "std")}
    if not all(
        isinstance(values, list) and all(isinstance(one, int | float) for one in values)
        for values in found.values()
    ):
        return None
    return {key: [float(one) for one in values or ()] for key, values in found.items()}


def config_digest(config: Mapping[str, Any]) -> str:
    """Digest of an architecture: of a config without its labels and where it comes from."""
    versions = ("transformers_version", "_diffusers_version")
    outside = (*_LABELS, *versions, "_name_or_path", "dtype", "torch_dtype")
    kept = {key: value for key, value in config.items() if key not in outside}
    return fingerprint_of("config", json.dumps(kept, sort_keys=True))


def labels_of(config: Mapping[str, Any]) -> list[str] | None:
    """Names that a config gives to the outputs, in their order; None where they have no names."""
    found = config.get("id2label")
    if not isinstance(found, Mapping):
        return None
    try:
        named = {int(number): str(name) for number, name in found.items()}
    except ValueError:
        return None
    names = [named.get(number, "") for number in range(len(named))]
    return None if all(re.fullmatch(r"LABEL_\d+|", name) for name in names) else names


def _read_json(path: Path, most: int = _MAX_JSON) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > most:
            raise SpecError(
                f"{path} has {size / 2**20:,.0f} MiB, and at most {most / 2**20:,.0f} are read."
            )
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path} is damaged: it is not JSON. Copy it again.") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path} is damaged: it is not a JSON object. Copy it again.")
    return content


# --- weights -------------------------------------------------------------------------------------


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights of any kind."""
    part = model_part(folder)
    return bool(paths_in(part, "*.safetensors*")) or bool(_pickles(part))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a folder's weights.

    Raises:
        CheckpointError: There are none, or a part of them is missing.
    """
    folder = model_part(folder)
    for stem in _STEMS:
        whole, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            return _parts(index)
    if pickles := _pickles(folder):
        name = pickles[0].name
        wanted = next((f"{s}.safetensors" for s in _STEMS if name.startswith(s)), WEIGHTS)
        raise CheckpointError(
            f"{folder} has its weights only in {name}, a pickle, which could run code and is never "
            f"read. `dataloupe convert {pickles[0]} {folder / wanted}` makes {wanted} of it."
        )
    others = [path for kind in ("h5", "msgpack", "onnx") for path in paths_in(folder, f"*.{kind}")]
    has = f"only {others[0].name}, which is of another library" if others else "no weights"
    raise CheckpointError(f"{folder} has {has}: {WEIGHTS} is needed. Save it with PyTorch.")


def _pickles(folder: Path) -> list[Path]:
    return [path for kind in _PICKLES for path in paths_in(folder, kind)]


def _parts(index: Path) -> list[Path]:
    try:
        content = _read_json(index)
    except SpecError as error:
        raise CheckpointError(str(error)) from error
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index} has no `weight_map`: it lists no part. Copy it again.")
    parts = []
    for name in sorted({str(part) for part in names.values()}):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} names {name!r}, which is no safetensors file beside it."
            )
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index} names the part {name}, which is missing. Copy it, too.")
        parts.append(index.parent / name)
    return parts


_DIGESTS: FileCache[str] = FileCache(most=1024)


def weights_digest(folder: Path) -> str:
    """Digest of a folder's weights, and of what it calls its outputs. Raises as `weight_files`."""
    files = weight_files(folder)
    digests = [
        [file.name, _DIGESTS.get(file, lambda file=file: file_digest(file))]  # type: ignore[misc]
        for file in files
    ]
    return fingerprint_of("folder", digests, labels_of(_content_of(folder)[0]))


# --- the tokenizer -------------------------------------------------------------------------------


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has the vocabulary of a tokenizer."""
    return any((folder / name).is_file() for name in _VOCABULARIES)


def _check_ids(settings: Mapping[str, Any], path: Path) -> None:
    """Raise SpecError if the numbers of tokens need a table that fills the memory."""
    model, added = settings.get("model"), settings.get("added_tokens")
    tables = [model.get("vocab") if isinstance(model, dict) else None]
    if path.name in ("vocab.json", "added_tokens.json"):
        tables.append(settings)
    ids: list[Any] = [id_ for table in tables if isinstance(table, dict) for id_ in table.values()]
    ids += [one.get("id") for one in added or () if isinstance(one, dict)]
    decoder = settings.get("added_tokens_decoder")
    ids += [int(key) for key in decoder or () if isinstance(decoder, dict) and key.isdecimal()]
    wrong = [id_ for id_ in ids if type(id_) is not int or not 0 <= id_ < _MAX_TOKENS]
    if wrong:
        raise SpecError(
            f"{path} is damaged or hostile: a token has the number {str(wrong[0])[:20]}, and they "
            f"go from 0 to {_MAX_TOKENS - 1:,}. Copy it again."
        )


def tokenizer_digest(folder: Path) -> str:
    """Digest of the files of a folder's tokenizer, checked before it is read.

    Raises:
        SpecError: There is none, or it is too large, damaged, or asks for code.
    """
    if not has_tokenizer(folder):
        raise SpecError(
            f"{folder} has no tokenizer (tokenizer.json). Copy the tokenizer's files there from "
            "the model that it was fine-tuned from, or name their folder as `tokenizer` under "
            "[task]."
        )
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        path = folder / name
        if not path.is_file():
            continue
        size = path.stat().st_size
        if size > _MAX_TOKENIZER:
            raise SpecError(
                f"{path} has {size / 2**20:,.0f} MiB; a tokenizer of at most "
                f"{_MAX_TOKENIZER / 2**20:,.0f} MiB is read."
            )
        content = path.read_bytes()
        if name.endswith(".json"):
            settings = _read_json(path, _MAX_TOKENIZER)
            if "auto_map" in settings:
                raise SpecError(
                    f"{path} asks for code of its own (auto_map), which is never run. Save the "
                    "tokenizer as tokenizer.json with a class of transformers."
                )
            _check_ids(settings, path)
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]
