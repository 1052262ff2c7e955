"""Make `emoji/*.parquet`: pictures of Noto Emoji with their names and keywords of Unicode's CLDR.

    npm pack emoji-datasource-google@16.0.0
    npm pack cldr-annotations-modern@45.0.0
    npm pack cldr-annotations-derived-modern@45.0.0
    python assets/make_emoji.py FOLDER_OF_THE_THREE_FILES

A caption is the English name of an emoji, then those of its keywords that say more. Pictures are 32
× 32 pixels on white, with at most 64 colors. The skin tones of one emoji are pairs of their own. A
pair goes into the test split by a hash of its code points, so that other versions of the packages
move no pair from one split to the other.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE, COLORS = 32, 64
TEST_SHARE = 0.16
MOST_WORDS = 16
PICTURES = "emoji-datasource-google-16.0.0.tgz"
LIST, DRAWN = "package/emoji.json", "package/img/google/64/"
NAMES = {
    "cldr-annotations-modern-45.0.0.tgz": (
        "package/annotations/en/annotations.json",
        "annotations",
    ),
    "cldr-annotations-derived-modern-45.0.0.tgz": (
        "package/annotationsDerived/en/annotations.json",
        "annotationsDerived",
    ),
}


def read_names(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Emoji → its name (`tts`) and keywords (`default`), in English."""
    found: dict[str, dict[str, list[str]]] = {}
    for file, (member, key) in NAMES.items():
        with tarfile.open(folder / file) as archive:
            content = archive.extractfile(member)
            assert content is not None
            found |= json.load(content)[key]["annotations"]
    return found


def read_pictures(folder: Path) -> dict[str, bytes]:
    """The list of emoji and their pictures, by name, in one pass through the archive."""
    found = {}
    with tarfile.open(folder / PICTURES) as archive:
        for member in archive:
            if member.isfile() and member.name.startswith((LIST, DRAWN)):
                content = archive.extractfile(member)
                assert content is not None
                found[member.name] = content.read()
    return found


def caption_of(about: dict[str, list[str]]) -> str:
    """The name, then the keywords that have another word, as far as they are few words."""
    (name,) = about["tts"]
    words = name.replace(":", " ").replace(",", " ").casefold().split()
    parts = [name]
    for keyword in about.get("default", []):
        new = keyword.replace(":", " ").replace(",", " ").casefold().split()
        if not {*new} <= {*words} and len(words) + len(new) <= MOST_WORDS:
            parts.append(keyword)
            words += new
    return ", ".join(parts)


def picture(content: bytes) -> bytes:
    """A small PNG on white."""
    drawn = Image.open(io.BytesIO(content)).convert("RGBA")
    white = Image.new("RGBA", drawn.size, "white")
    small = Image.alpha_composite(white, drawn).convert("RGB").resize((SIDE, SIDE), 1)
    buffer = io.BytesIO()
    small.quantize(COLORS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def emoji(about: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """(the emoji, it or a skin tone of it, the skin tone's number) in the order of keyboards."""
    for one in sorted(about, key=lambda one: int(one["sort_order"])):
        yield one, one, "none"
        for code, variant in sorted((one.get("skin_variations") or {}).items()):
            yield one, variant, code


TONES = {
    "none": "none",
    "1F3FB": "light",
    "1F3FC": "medium-light",
    "1F3FD": "medium",
    "1F3FE": "medium-dark",
    "1F3FF": "dark",
}


def make(folder: Path, target: Path) -> None:
    """Write both splits into the folder `target`."""
    names = read_names(folder)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    files = read_pictures(folder)
    for one, variant, tone in emoji(json.loads(files[LIST])):
        text = "".join(chr(int(code, 16)) for code in variant["unified"].split("-"))
        known = names.get(text) or names.get(text.replace("\ufe0f", ""))
        content = files.get(f"{DRAWN}{variant['image']}")
        if known is None or content is None:  # too new for the names
            continue
        digest = hashlib.sha256(variant["unified"].encode()).digest()
        split = "test" if digest[0] < 256 * TEST_SHARE else "train"
        rows[split].append(
            {
                "image": {"bytes": picture(content), "path": None},
                "caption": caption_of(known),
                "code_points": variant["unified"].lower(),
                "category": one["category"],
                "kind": one["subcategory"],
                "skin_tone": TONES.get(tone, "two"),
            }
        )
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    texts = ("caption", "code_points", "category", "kind", "skin_tone")
    features |= {name: {"dtype": "string", "_type": "Value"} for name in texts}
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            *((name, pa.string()) for name in texts),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    target.mkdir(exist_ok=True)
    for split, found in rows.items():
        # The order of keyboards would put alike ones into the same rows of a split.
        found.sort(key=lambda row: hashlib.sha256(row["code_points"].encode()).digest()[1:])
        table = pa.Table.from_pylist(found, schema=schema)
        pq.write_table(table, target / f"{split}.parquet", compression="zstd", row_group_size=1000)
        print(f"{split}: {len(found):,} pairs")


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(__file__).parent / "emoji")
