"""Live queries: the study's own scores for the study's own examples, with every solver."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import DataError, DataloupeError, StoreError, Study, store
from engine.applications.live import Query, load, run_query
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.new_examples import plan_as_json, plan_from_json
from engine.build.stages import live as live_stage
from engine.store import layout
from engine.study.examples import read_arrays
from engine.study.live_and_maps import read_live
from engine.study.models import read_probabilities
from engine.study.score_matrices import read_features
from engine.tasks.image_classification import Options, accept
from engine.training.outputs import read_batch
from tests.conftest import SMALL_STUDY

ROADS = {
    "dual-exact": "",
    "dual-wide": '[trak]\nsolver = "dual-wide"\nwidth = 256\nsoft_threshold = 0.5\n',
    "primal": '[trak]\nsolver = "primal"\nproj_dim = 64\nstorage = "int4"\n',
    "plain": '[trak]\ncurvature = "plain"\n',
}


def spec_of(solver: str) -> str:
    text = SMALL_STUDY.replace("checkpoints = 2", "checkpoints = 3")
    text = text.partition("[subset_runs]")[0]
    if solver == "dual-wide":  # with convolutions, norms and a linear head
        text = text.replace('"mlp"', '"resnet-small"').replace("{ widths = [32] }", "{}")
        text = text.replace("epochs = 4", "epochs = 2")
    return f"{text}\n{ROADS[solver]}\n[live]\ncheckpoints = 2\n"


@pytest.fixture(scope="module", params=ROADS)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("live") / request.param
    built = Study.create(root, spec_of(request.param))
    built.build(workers=0)
    return built


def png(pixels: np.ndarray, mode: str | None = None, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, format, **options)
    return file.getvalue()


def pixels_of(study: Study, row: int) -> np.ndarray:
    return np.array(read_arrays(study, "test")[0]["input"][row, 0])


def restricted_scores(study: Study, row: int, checkpoints: int) -> np.ndarray:
    """The stored scores of a test example, over the first checkpoints alone."""
    mean_q = store.read_tensors(layout.weighting_file(study.root, "mlp"))["out_to_loss"]
    parts = []
    for m in range(checkpoints):
        if layout.dual_file(study.root, "mlp", m).exists():
            parts.append(store.read_tensors(layout.dual_file(study.root, "mlp", m))["scores"][row])
        else:
            features = read_features(study, "mlp", m)[0][:]
            factors = store.read_tensors(layout.factors_file(study.root, "mlp", m))["factors"]
            parts.append(features @ factors[row])
    scores = mean_q * np.mean(parts, axis=0)
    threshold = (
        store.read_json(layout.solver_file(study.root, "mlp"))["soft_threshold"] * scores.std()
    )
    return np.sign(scores) * np.maximum(np.abs(scores) - threshold, 0)


def test_a_test_picture_gets_its_own_stored_scores(study: Study) -> None:
    labels = study.table("test")["label"]
    for row in range(0, 60, 7):
        query = Query(
            study.root, "mlp", {"picture": png(pixels_of(study, row))}, f"class:{labels[row]}"
        )
        answer = run_query(query)
        wanted = restricted_scores(study, row, 2)
        # What a soft threshold leaves of a score may be no larger than its rounding.
        shrunk = store.read_json(layout.solver_file(study.root, "mlp"))["soft_threshold"] > 0
        tiny = (1e-4 if shrunk else 1e-5) * abs(wanted).max()
        for sign, rows, scores in (
            (1, answer.support, answer.support_scores),
            (-1, answer.oppose, answer.oppose_scores),
        ):
            order = np.argsort(-sign * wanted, kind="stable")[: (sign * wanted > 0).sum()]
            assert len(set(rows)) == len(rows) == len(order)  # scores alike may change places
            np.testing.assert_allclose(wanted[rows], wanted[order], rtol=1e-3, atol=tiny)
            np.testing.assert_allclose(scores, wanted[rows], rtol=1e-3, atol=tiny)
        np.testing.assert_allclose(answer.support_total, wanted[wanted > 0].sum(), rtol=1e-3)
        np.testing.assert_allclose(answer.oppose_total, wanted[wanted < 0].sum(), rtol=1e-3)
        assert answer.scoring == 2


def test_a_test_picture_gets_its_own_prediction_and_neighbours(study: Study) -> None:
    predictions = study.predictions("test")
    for row in (0, 33):
        answer = run_query(Query(study.root, "mlp", {"picture": png(pixels_of(study, row))}))
        np.testing.assert_allclose(
            answer.probabilities, read_probabilities(study, "test", row), 1e-4
        )
        assert answer.predicting == 3
        assert answer.predicted == predictions["predicted"][row]
        assert answer.output.name == f"class:{answer.predicted}"
        if predictions["correct"][row]:
            assert answer.value == pytest.approx(predictions["output"][row], rel=1e-3)
        rows, alike = study.neighbours("test", row, 100)
        np.testing.assert_array_equal(answer.similar[:100], rows)
        np.testing.assert_allclose(answer.similarities[:100], alike, atol=1e-5)
        assert answer.notes == []
        thumbnail = Image.open(io.BytesIO(answer.thumbnail))
        np.testing.assert_array_equal(np.asarray(thumbnail), pixels_of(study, row))


def test_another_class_is_explained_when_it_is_asked_for(study: Study) -> None:
    content = png(pixels_of(study, 3))
    predicted = run_query(Query(study.root, "mlp", {"picture": content}))
    classes = study.dataset.classes
    other = (classes.index(predicted.predicted) + 1) % 10
    answer = run_query(Query(study.root, "mlp", {"picture": content}, f"class:{classes[other]}"))
    assert answer.predicted == predicted.predicted
    assert answer.output.classes == (classes[other],)
    p = predicted.probabilities[other]
    assert answer.value == pytest.approx(np.log(p / (1 - p)), abs=1e-4)
    assert list(answer.support[:10]) != list(predicted.support[:10])
    np.testing.assert_array_equal(answer.similar, predicted.similar)


def test_a_plan_survives_json(small_study: Study) -> None:
    loaded = load(small_study.root, "mlp")
    arrays = {name: array[:8] for name, array in read_arrays(small_study, "train")[0].items()}
    batch = read_batch(loaded.task, arrays, slice(0, 8), small_study.dataset.encoding, "cpu")
    plan = plan_gradients(loaded.models[0], loaded.task.model_output, batch)
    again = plan_from_json(json.loads(json.dumps(plan_as_json(plan), sort_keys=True)))
    assert again == plan
    assert [*again.shapes] == [*plan.shapes]
    assert [*again.layers] == [*plan.layers]


# --- what is kept, and what is not --------------------------------------------------------------


def test_as_many_checkpoints_as_are_quickly_read(
    small_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = read_live(small_study)
    assert live.checkpoints == 2
    files = [layout.live_inverse_file(small_study.root, "mlp", m) for m in range(2)]
    files += [layout.live_traces_file(small_study.root, "mlp", m, 0) for m in range(2)]
    kept = sum(tensor.nbytes for file in files for tensor in store.read_tensors(file).values())
    assert live.kept_bytes == pytest.approx(kept, rel=0.05)
    monkeypatch.setattr(live_stage, "COMFORTABLE_BYTES", live.read_bytes // 2)
    assert live_stage.choose(small_study, "mlp").checkpoints == 1
    monkeypatch.setattr(live_stage, "COMFORTABLE_BYTES", 1)
    assert live_stage.choose(small_study, "mlp").checkpoints == 1
    monkeypatch.setattr(live_stage, "MOST_BYTES", 1)
    nothing = live_stage.choose(small_study, "mlp")
    assert nothing.checkpoints == nothing.kept_bytes == 0
    assert "would read" in nothing.reason


@pytest.fixture
def copy(small_study: Study, tmp_path: Path) -> Study:
    return Study.open(shutil.copytree(small_study.root, tmp_path / "copy"))


def rewrite(study: Study, old: str, new: str) -> Study:
    layout.spec_file(study.root).write_text(
        layout.spec_file(study.root).read_text().replace(old, new)
    )
    return Study.open(study.root)


def test_none_is_kept_where_none_is_wanted(copy: Study) -> None:
    study = rewrite(copy, "[search]", "[live]\ncheckpoints = 0\n\n[search]")
    study.build(workers=0)
    assert not layout.live_inverse_file(study.root, "mlp", 0).exists()
    with pytest.raises(DataloupeError, match=r"no checkpoint for live queries: set in study\.toml"):
        run_query(Query(study.root, "mlp", {"picture": png(pixels_of(study, 0))}))
    assert all(step.complete for step in study.progress())


def test_fewer_checkpoints_in_the_spec_than_were_built_are_named(copy: Study) -> None:
    rewrite(copy, "checkpoints = 2", "checkpoints = 1")
    query = Query(copy.root, "mlp", {"picture": png(pixels_of(copy, 0))})
    with pytest.raises(StoreError, match=r"names 1 checkpoint of mlp, .* with 2\. Undo the change"):
        run_query(query)


def test_a_study_that_is_built_anew_is_loaded_anew(copy: Study) -> None:
    query = Query(copy.root, "mlp", {"picture": png(pixels_of(copy, 0))})
    before = run_query(query)
    rewrite(copy, "epochs = 4", "epochs = 3").build(workers=0, rebuild="checkpoints")
    after = run_query(query)
    assert not np.allclose(before.probabilities, after.probabilities)
    layout.live_file(copy.root, "mlp").unlink()
    with pytest.raises(StoreError, match="is missing"):
        run_query(query)


def test_features_of_another_device_are_not_mixed(tmp_path: Path) -> None:
    study = Study.create(
        tmp_path / "primal", spec_of("primal").replace("= 300", "= 60").replace("int4", "float32")
    )
    study.build(workers=0)
    shutil.rmtree(layout.live_folder(study.root, "mlp"))
    path = layout.features_file(study.root, "mlp", 0, 0)
    fingerprint = store.read_header(path)[1][store.FINGERPRINT_KEY]
    other = {"features": store.read_tensors(path)["features"][:, ::-1]}
    store.write_tensors(path, other, fingerprint)
    with pytest.raises(StoreError, match="--rebuild trak"):
        study.build(workers=0)


# --- pictures of strangers ----------------------------------------------------------------------


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def animation() -> bytes:
    frames = [Image.fromarray(photo(40, 40, seed)) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return png(photo(60, 30), format="JPEG", exif=exif)


def header_of_100_megapixels() -> bytes:
    """A whole PNG of 10,000 × 10,000 black pixels, in some 100 kB: what a bomb is made of."""
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    return file.getvalue()


REFUSED = {
    "empty": (b"", "The file is empty"),
    "no picture": (b"I am no picture, whatever my name says.", "no picture of a known format"),
    "html": (b"<script>alert(1)</script>", "no picture of a known format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no picture of a known format"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a known"),
    "truncated": (png(photo(300, 300))[:20_000], "damaged"),
    "truncated jpeg": (png(photo(300, 300), format="JPEG")[:8_000], "damaged"),
    "100 megapixels": (header_of_100_megapixels(), "more than the 25,000,000 pixels"),
}


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_picture_gets_one_clear_line(
    small_study: Study, content: bytes, words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        run_query(Query(small_study.root, "mlp", {"picture": content}))
    assert "\n" not in str(caught.value)
    assert "example" not in str(caught.value)
    assert str(caught.value)[0].isupper()


ACCEPTED = {
    "photo": (png(photo(640, 480)), ["colors were removed", "640 × 480 pixels and was resized"]),
    "1×1": (
        png(photo(1, 1)),
        ["colors were removed", "1 × 1 pixels and was enlarged", "few pixels"],
    ),
    "tall": (png(photo(20, 2000)), ["colors were removed", "20 × 2,000", "so tall"]),
    "wide": (png(photo(900, 30)), ["colors were removed", "900 × 30", "so wide"]),
    "animated": (animation(), ["only its first frame", "colors", "40 × 40"]),
    "turned": (turned(), ["rotated as its EXIF", "colors", "30 × 60"]),
    "CMYK": (png(photo(28, 28), "CMYK", "JPEG"), ["CMYK colors", "colors were removed"]),
    "16 bits": (
        png(np.arange(784, dtype=np.uint16).reshape(28, 28) * 80),
        ["upper 8 of its 16 bits"],
    ),
    "transparent": (
        png(photo(28, 28), "RGBA"),
        ["black, the background of the training", "colors"],
    ),
    "palette": (png(photo(28, 28), "P"), ["colors were removed"]),
    "black and white": (png(photo(28, 28), "1"), []),
}


@pytest.mark.parametrize(("content", "notes"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_picture_of_any_kind_is_made_to_fit_and_said_how(
    small_study: Study, content: bytes, notes: list[str]
) -> None:
    answer = run_query(Query(small_study.root, "mlp", {"picture": content}))
    assert len(answer.notes) == len(notes)
    for note, words in zip(answer.notes, notes, strict=True):
        assert words in note
    assert answer.probabilities.sum() == pytest.approx(1)
    assert len(answer.support) > 20
    assert answer.thumbnail is not None
    assert Image.open(io.BytesIO(answer.thumbnail)).mode == "L"


def test_a_picture_keeps_its_proportions_where_the_study_has_no_rule(small_study: Study) -> None:
    loaded = load(small_study.root, "mlp")
    wide = png(np.full((50, 100), 255, np.uint8))
    accepted = loaded.task.accept({"picture": wide}, loaded.options, small_study.dataset.encoding)
    encoded = loaded.task.encode([accepted.row], accepted.options, small_study.dataset.encoding)
    pixels = encoded.arrays["input"][0, 0]
    assert pixels[:6].max() == pixels[-6:].max() == 0
    assert pixels[8:20].min() == 255


def test_the_study_s_own_rule_is_kept(small_study: Study) -> None:
    own = Options(image_size=28, resize="crop", color="grey")
    given = {"picture": png(photo(50, 40))}
    assert accept(given, own, small_study.dataset.encoding).options == own


# --- texts ---------------------------------------------------------------------------------------


def test_a_text_is_answered_and_said_what_the_model_does_not_know(text_study: Study) -> None:
    text = text_study.table("test")["text"][0]
    label = text_study.table("test")["label"][0]
    answer = run_query(Query(text_study.root, "words", {"text": text}, f"class:{label}"))
    scores = text_study.scores([0])[0]
    assert answer.scoring == 2 == text_study.checkpoints("words")
    found = answer.support_scores
    np.testing.assert_allclose(found, scores[answer.support], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found[:50], np.sort(scores)[::-1][:50], rtol=1e-3)
    alike = text_study.neighbours("test", 0, 50)[1]
    np.testing.assert_allclose(answer.similarities[:50], alike, atol=1e-5)
    assert (answer.thumbnail, answer.text, answer.notes) == (None, text, [])
    strange = run_query(
        Query(text_study.root, "words", {"text": "my sister praised Zanzibar " * 5})
    )
    assert "first 6 of 20 words" in strange.notes[0]
    assert "“zanzibar”" in strange.notes[1]
    with pytest.raises(DataError, match="has no words"):
        run_query(Query(text_study.root, "words", {"text": " …!? "}))
