"""Imported scores become methods of a study: written, ranked, shown, replaced and removed."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from streamlit.testing.v1 import AppTest

from engine import DataloupeError, ImportingError, StoreError, Study, store
from engine.build.batches import batches_of
from engine.build.models import load_checkpoint
from engine.cli.main import main
from engine.exchange.importing import KINDS, methods
from engine.exchange.importing.source import Blocks
from engine.store import layout
from engine.store.errors import InterruptedBuild
from engine.study.doctor import examine
from engine.study.methods import imported_methods, ranked_methods, scored_methods
from engine.study.names import resolve_algorithm
from engine.study.rankings import read_top, read_top_of_training
from engine.study.score_matrices import read_score_matrix
from tests.builders.files_of_other_tools import saved, write_kronfluence, write_traker

if TYPE_CHECKING:
    from torch import Tensor, nn

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
N_TEST, N_TRAIN = 60, 300
PLANTED = np.random.default_rng(0).standard_normal((N_TEST, N_TRAIN)).astype(np.float32)
NO_BENCH = "needs the extra `bench`: make bench"


@pytest.fixture(scope="module")
def only_data(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with data and no trained models. Copy it before writing into it."""
    from engine.build.build import build_data
    from tests.conftest import SMALL_STUDY

    study = Study.create(tmp_path_factory.mktemp("studies") / "only-data", SMALL_STUDY)
    build_data(study)
    return study


@pytest.fixture
def study(only_data: Study, tmp_path: Path) -> Study:
    return Study.open(shutil.copytree(only_data.root, tmp_path / "study"))


def rows_shown(app: AppTest, sign: str) -> list[int]:
    galleries = [json.loads(part.proto.json or "{}") for part in app.get("bidi_component")]
    (gallery,) = [gallery for gallery in galleries if "groups" in gallery]
    (group,) = [group for group in gallery["groups"] if group["sign"] == sign]
    return [item["row"] for item in group["items"]]


def words(app: AppTest) -> str:
    return "\n".join(part.value for part in app.html if not part.value.startswith("<style"))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def files_of(study: Study) -> dict[str, bytes]:
    return {
        str(path.relative_to(study.root)): path.read_bytes()
        for path in sorted(study.root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


# --- the tools themselves ----------------------------------------------------------------------


def run_traker(study: Study, folder: Path) -> np.ndarray:
    """traker's own scores of a study's two checkpoints, `[n_train, n_test]`."""
    from trak import TRAKer

    models = [load_checkpoint(study, "mlp", number, "cpu").eval() for number in range(2)]
    traker = TRAKer(
        model=models[0],
        task="image_classification",
        train_set_size=N_TRAIN,
        save_dir=folder,
        device="cpu",
        proj_dim=16,
        use_half_precision=False,
        logging_level=logging.ERROR,
    )
    for number, model in enumerate(models):
        traker.load_checkpoint(model.state_dict(), model_id=number)
        for batch in batches_of(study, "train", "cpu", 100)():
            traker.featurize([batch["input"], batch["label"]], num_samples=len(batch["label"]))
    traker.finalize_features()
    for number, model in enumerate(models):
        traker.start_scoring_checkpoint("test", model.state_dict(), number, N_TEST)
        for batch in batches_of(study, "test", "cpu", N_TEST)():
            traker.score([batch["input"], batch["label"]], num_samples=N_TEST)
    return np.array(traker.finalize_scores("test"))


def test_imports_what_traker_writes(small_study: Study, tmp_path: Path, visit: Any) -> None:
    """The dashboard shows the same top-k as traker's own score matrix."""
    pytest.importorskip("trak", reason=NO_BENCH)
    own = run_traker(small_study, tmp_path / "save_dir")
    study = Study.open(shutil.copytree(small_study.root, tmp_path / "study"))
    study.import_scores("traker", tmp_path / "save_dir")
    assert {"trak", "traker"} <= set(ranked_methods(study, resolve_algorithm(study)))
    np.testing.assert_array_equal(
        read_score_matrix(study, method="traker").rows(np.arange(N_TEST)), own.T
    )
    for test in (0, 17, 59):
        app = visit(study, "explain", test=f"test-{test}", method="traker", k="10")
        order = np.argsort(-own[:, test], kind="stable")
        assert rows_shown(app, "support") == order[:10].tolist()
        assert rows_shown(app, "oppose") == order[::-1][:10].tolist()
        assert "Imported from test.mmap, made by traker" in words(app)

    by_hand = write_traker(tmp_path / "by-hand", np.ascontiguousarray(own.T))
    for name in ("metadata.json", "id_0.json"):
        assert (by_hand / name).read_text() == (tmp_path / "save_dir" / name).read_text()
    found = [
        json.loads((at / "experiments.json").read_text()) for at in by_hand.parent.glob("*-*d")
    ]
    real = json.loads((tmp_path / "save_dir" / "experiments.json").read_text())["test"]
    assert [one["test"] | {"scores_path": real["scores_path"]} for one in found] == [real]
    real_bytes = (tmp_path / "save_dir" / "scores" / "test.mmap").read_bytes()
    assert (by_hand / "scores" / "test.mmap").read_bytes() == real_bytes


def run_kronfluence(study: Study, folder: Path) -> dict[str, dict[str, Tensor]]:
    """kronfluence's own scores of a study's first checkpoint, `[n_test, n_train]`.

    Returns:
        `whole` and `modules` → scores by module name; `whole` has one matrix for the whole model.
    """
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Losses(Task):  # type: ignore[misc]
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    def tensors(split: Any) -> torch.utils.data.TensorDataset:
        (batch,) = batches_of(study, split, "cpu", N_TRAIN)()
        return torch.utils.data.TensorDataset(batch["input"], batch["label"])

    analyzer = Analyzer(
        analysis_name="demo",
        model=prepare_model(load_checkpoint(study, "mlp", 0, "cpu").eval(), Losses()),
        task=Losses(),
        cpu=True,
        disable_tqdm=True,
        log_level=logging.ERROR,
        output_dir=str(folder),
    )
    analyzer.fit_all_factors(
        "plain", tensors("train"), N_TRAIN, factor_args=FactorArguments(strategy="identity")
    )
    found = {}
    for name, by_module in (("whole", False), ("modules", True)):
        analyzer.compute_pairwise_scores(
            name,
            "plain",
            tensors("test"),
            tensors("train"),
            per_device_query_batch_size=N_TEST,
            per_device_train_batch_size=N_TRAIN,
            score_args=ScoreArguments(compute_per_module_scores=by_module),
        )
        found[name] = analyzer.load_pairwise_scores(name)
    return found


@pytest.mark.filterwarnings("ignore")
def test_imports_what_kronfluence_writes(small_study: Study, study: Study, tmp_path: Path) -> None:
    pytest.importorskip("kronfluence", reason=NO_BENCH)
    found = run_kronfluence(small_study, tmp_path)
    assert [len(tensors) for tensors in found.values()] == [1, 2]
    for name, tensors in found.items():
        folder = tmp_path / "demo" / f"scores_{name}"
        study.import_scores("kronfluence", folder, name=name)
        own = sum(tensors.values()).numpy()
        np.testing.assert_allclose(study.scores(range(N_TEST), method=name), own, rtol=1e-4)
        order = np.argsort(-own[7], kind="stable")
        shown = [one.row for one in study.explain(7, k=5, method=name).supporting]
        assert shown == order[:5].tolist()
        assert "strategy identity, damping_factor 1e-08" in study.badge(method=name).reason

        modules = {module: methods.numpy() for module, methods in tensors.items()}
        by_hand = write_kronfluence(tmp_path / f"by-hand-{name}", **modules)
        for at in (folder, by_hand):
            with safe_open(at / "pairwise_scores.safetensors", "np") as file:
                assert sorted(file.keys()) == sorted(modules)
                assert file.metadata()["damping_factor"] == "1e-08"


# --- files written by the tests, into a study without models -------------------------------------


def test_scores_of_every_kind_become_a_method(study: Study, tmp_path: Path) -> None:
    transposed = saved(tmp_path / "transposed.npy", PLANTED.T)
    paths = {
        "traker": write_traker(tmp_path / "save_dir", PLANTED),
        "kronfluence": write_kronfluence(tmp_path / "scores_a", all_modules=PLANTED),
        "dattri": transposed,
        "modeldiff": saved(tmp_path / "scores.npy", PLANTED),
        "npy": transposed,
    }
    assert paths.keys() == KINDS.keys()
    for kind, path in paths.items():
        found = study.import_scores(kind, path)
        assert (found.algorithm, found.method, found.was_there) == ("mlp", kind, False)
        np.testing.assert_array_equal(study.scores(range(N_TEST), method=kind), PLANTED)
        order = np.argsort(-PLANTED[9], kind="stable")
        explanation = study.explain(9, k=4, method=kind)
        assert [one.row for one in explanation.supporting] == order[:4].tolist()
        assert [one.row for one in explanation.opposing] == order[::-1][:4].tolist()
        assert explanation.predicted is None
        assert (
            read_top_of_training(study, 2, method=kind)["support_index"][0]
            == PLANTED[:, 2].argmax()
        )
    assert ranked_methods(study, resolve_algorithm(study)) == sorted(KINDS)


def test_an_import_reads_the_studys_data_first(study_folder: Path, tmp_path: Path) -> None:
    study = Study.open(study_folder)
    assert not study.has_data
    study.import_scores("npy", saved(tmp_path / "own.npy", PLANTED))
    assert study.has_data
    assert ranked_methods(Study.open(study_folder), "mlp") == ["npy"]


def test_the_badge_states_only_what_is_known(study: Study, tmp_path: Path) -> None:
    study.import_scores("traker", write_traker(tmp_path / "save_dir", PLANTED))
    badge = study.badge()
    assert str(badge) == "traker, imported · LDS not measured · uncalibrated"
    assert (badge.solver, badge.checkpoints, badge.damping, badge.lds) == (None, None, None, None)
    assert "JL dimension 16" in badge.reason
    (about,) = imported_methods(study, resolve_algorithm(study)).values()
    mmap = tmp_path / "save_dir" / "scores" / "test.mmap"
    assert about.files == {"test.mmap": store.file_digest(mmap)}
    assert (about.shape, about.rows) == ([N_TRAIN, N_TEST], "train")


def test_a_note_warns_of_reordered_examples_and_opposite_signs(
    study: Study, tmp_path: Path
) -> None:
    """The shape does not show either, but the labels do."""
    labels = [study.table(split)["label"].to_numpy() for split in ("test", "train")]
    like = PLANTED + 9 * (labels[0][:, None] == labels[1]) - 4
    shuffled = np.random.default_rng(1).permutation(N_TRAIN)
    words = {"good": "", "order": "in the study's order.", "signs": "--negate --replace."}
    for name, array in {"good": like, "order": like[:, shuffled], "signs": -like}.items():
        path = saved(tmp_path / f"{name}.npy", array)
        (note,) = study.import_scores("npy", path, name=name).notes
        found = [word for word in words.values() if word and word in note]
        assert found == [word for word in [words[name]] if word]
        if name == "good":
            assert "in 100% of cases, the strongest opposing one in 0%; chance is 10%." in note


@pytest.mark.determinism
def test_importing_the_same_files_again_gives_the_same_bytes(study: Study, tmp_path: Path) -> None:
    path = saved(tmp_path / "own.npy", PLANTED)
    study.import_scores("npy", path)
    before = files_of(study)
    assert study.import_scores("npy", path).was_there
    assert files_of(study) == before
    methods.remove_import(study, "npy")
    study.import_scores("npy", path)
    assert files_of(study) == before
    assert examine(study).broken == []


def test_signs_can_be_negated(study: Study, tmp_path: Path) -> None:
    study.import_scores("npy", saved(tmp_path / "own.npy", PLANTED), negate=True)
    np.testing.assert_array_equal(study.scores([4], method="npy")[0], -PLANTED[4])


def test_scores_are_placed_correctly_in_many_shards_and_blocks(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("engine.study.reader", "engine.study.examples", "engine.build.method_files"):
        monkeypatch.setattr(f"{module}.ROWS_PER_SHARD", 32)
    monkeypatch.setattr(Blocks.read, "__defaults__", (40_000,))
    for later in ("rank_and_index", "_plausibility"):
        monkeypatch.setattr(methods, later, lambda *_: None)
    for name, array in {"rows": PLANTED, "columns": PLANTED.T.copy()}.items():
        study.import_scores("npy", saved(tmp_path / f"{name}.npy", array), name=name)
        assert layout.method_scores_file(study.root, "mlp", name, 1).exists()
        found = read_score_matrix(study, "mlp", name).rows(np.arange(N_TEST))
        np.testing.assert_array_equal(found, PLANTED)


# --- refused, replaced, removed ----------------------------------------------------------------


def test_a_name_is_reused_only_on_request(study: Study, tmp_path: Path) -> None:
    study.import_scores("npy", saved(tmp_path / "own.npy", PLANTED))
    other = saved(tmp_path / "other.npy", 2 * PLANTED)
    with pytest.raises(ImportingError, match=r"other scores under the name 'npy'.*--replace"):
        study.import_scores("npy", other)
    np.testing.assert_array_equal(study.scores([0])[0], PLANTED[0])
    study.import_scores("npy", other, name="npy", replace=True)
    np.testing.assert_array_equal(study.scores([0])[0], 2 * PLANTED[0])
    np.testing.assert_allclose(
        read_top(study)["support_score"][0], 2 * np.sort(PLANTED[0])[::-1][:20], rtol=1e-6
    )


@pytest.mark.parametrize("name", ["trak", "datamodel", "../up", "a b"])
def test_invalid_and_reserved_names_are_refused(study: Study, tmp_path: Path, name: str) -> None:
    with pytest.raises(ImportingError, match=r"of Dataloupe's own methods|cannot be the name"):
        study.import_scores("npy", saved(tmp_path / "own.npy", PLANTED), name=name)


def test_a_refused_file_does_not_change_the_study(study: Study, tmp_path: Path) -> None:
    study.import_scores("npy", saved(tmp_path / "own.npy", PLANTED))
    before = files_of(study)
    bad = PLANTED.copy()
    bad[59, 299] = np.nan
    with pytest.raises(ImportingError, match="training row 299 for test row 59 is nan"):
        study.import_scores("npy", saved(tmp_path / "bad.npy", bad), replace=True)
    with pytest.raises(ImportingError, match="all scores are 0"):
        study.import_scores("npy", saved(tmp_path / "bad.npy", 0 * PLANTED), replace=True)
    with pytest.raises(ImportingError, match="no kind 'logix'"):
        study.import_scores("logix", tmp_path / "own.npy")
    with pytest.raises(DataloupeError, match="no algorithm 'cnn'"):
        study.import_scores("npy", tmp_path / "own.npy", algorithm="cnn")
    assert files_of(study) == before


def test_an_interrupted_import_resumes(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "own.npy", PLANTED)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(methods, "rank_and_index", stopped)
        with pytest.raises(InterruptedBuild):
            study.import_scores("npy", path)
    assert ranked_methods(study, resolve_algorithm(study)) == []
    assert study.import_scores("npy", path).was_there
    assert ranked_methods(study, resolve_algorithm(study)) == ["npy"]


def test_a_build_ranks_imported_scores_again(small_study: Study, tmp_path: Path) -> None:
    study = Study.open(shutil.copytree(small_study.root, tmp_path / "study"))
    study.import_scores("npy", saved(tmp_path / "own.npy", PLANTED))
    study.build(workers=0)  # evaluates them too
    before = files_of(study)
    shutil.rmtree(layout.search_folder(study.root, "mlp", "npy"))
    study.build(workers=0)
    assert files_of(study) == before


def test_a_build_refuses_imported_scores_of_other_data(study: Study, tmp_path: Path) -> None:
    study.import_scores("npy", saved(tmp_path / "own.npy", PLANTED))
    text = layout.spec_file(study.root).read_text().replace("test_limit = 60", "test_limit = 50")
    layout.spec_file(study.root).write_text(text)
    changed = Study.open(study.root)
    with pytest.raises(
        StoreError, match=r"'npy' of mlp were made for different data.*--remove npy"
    ):
        changed.build(workers=0, rebuild="data")
    methods.remove_import(changed, "npy")
    assert scored_methods(changed, "mlp") == []


def test_doctor_suggests_importing_broken_scores_again(study: Study, tmp_path: Path) -> None:
    path = saved(tmp_path / "own.npy", PLANTED)
    study.import_scores("npy", path)
    shard = layout.method_scores_file(study.root, "mlp", "npy", 0)
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    report = examine(study, repair=True)
    assert report.broken == [
        f"{shard} is broken. It was imported, so only importing it again repairs it."
    ]
    assert ranked_methods(study, resolve_algorithm(study)) == []
    study.import_scores("npy", path)
    np.testing.assert_array_equal(study.scores([0])[0], PLANTED[0])


# --- the command line --------------------------------------------------------------------------


def test_scores_are_imported_listed_and_removed_on_the_command_line(
    study: Study, tmp_path: Path, capsys: Any
) -> None:
    folder = write_traker(tmp_path / "save_dir", PLANTED)
    code, out, _ = run(capsys, "import", "traker", folder, "--study", study.root, "--name", "t")
    assert code == 0
    assert "[300 training, 60 test] examples; it is transposed" in out
    assert "strongest supporting example has the test example's label in" in out
    assert (
        f"Method t of mlp is imported. To open the dashboard, run: dataloupe serve {study.root}"
        in out
    )
    code, out, _ = run(capsys, "methods", study.root)
    assert code == 0
    assert "t by traker, imported" in " ".join(out.split())
    code, out, _ = run(capsys, "explain", study.root, "--test", 3, "--method", "t")
    assert code == 0
    assert "no model of this study has predicted it yet" in out
    code, _, err = run(capsys, "import", "npy", tmp_path / "none.npy", "--study", study.root)
    assert code == 2
    assert err == f"dataloupe: {tmp_path / 'none.npy'} cannot be read: No such file or directory.\n"
    assert run(capsys, "methods", study.root, "--remove", "t")[0] == 0
    assert ranked_methods(study, resolve_algorithm(study)) == []
    code, _, err = run(capsys, "methods", study.root, "--remove", "t")
    assert code == 2
    assert err == "dataloupe: mlp has no imported scores 't'; imported are: none.\n"


# --- the dashboard -----------------------------------------------------------------------------


def test_pages_show_imported_scores_without_predictions(
    study: Study, tmp_path: Path, visit: Any
) -> None:
    study.import_scores("traker", write_traker(tmp_path / "save_dir", PLANTED))
    app = visit(study, "explain", test="test-9")
    order = np.argsort(-PLANTED[9], kind="stable")
    assert rows_shown(app, "support") == order[:12].tolist()
    assert rows_shown(app, "oppose") == order[::-1][:12].tolist()
    assert "Imported from test.mmap, made by traker" in words(app)
    assert "this study has no predictions yet" in words(app)
    assert "checkpoint" not in words(app).lower()
    app = visit(study, "training", train="train-2")
    assert rows_shown(app, "support")[0] == PLANTED[:, 2].argmax()
    app = visit(study, "explore")
    assert "this study has no predictions yet" in words(app)
    assert "Imported from test.mmap" in words(visit(study, "overview"))
    app = visit(study, "provenance")
    (about,) = imported_methods(study, resolve_algorithm(study)).values()
    assert about.files["test.mmap"][:16] in words(app)
    assert "300 × 60, one row per train example" in words(app)
