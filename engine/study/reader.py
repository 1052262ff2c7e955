"""A study: the folder that holds everything computed for one dataset.

Opening a study and reading what it holds never imports torch. `engine.store.layout` names its
files.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from engine import store
from engine.attribution.datamodels import run_bank
from engine.attribution.datamodels.run_bank import BankImport, RunBank
from engine.attribution.evaluation.quality import Measured, Quality
from engine.attribution.softmax import softmax
from engine.store.errors import DataloupeError, SpecError, StoreError
from engine.store.layout import (
    DATAMODEL,
    FORMAT,
    HYBRID,
    MAP_KINDS,
    ROWS_PER_SHARD,
    SPLITS,
    TRAK,
    Layout,
    MapKind,
    Split,
)
from engine.store.records import (
    Badge,
    Dataset,
    Explanation,
    Import,
    Influence,
    Live,
    Progress,
    Similarity,
    TrainingDatamodel,
)
from engine.store.sharded_rows import ShardedRows
from engine.store.spec import AlgorithmSpec, StudySpec, load_spec
from engine.study.uploads import Upload, read_uploads

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from engine.applications.verification import Verification
    from engine.attribution.evaluation.counterfactual import Counterfactual
    from engine.attribution.scores.factors import FactorScores
    from engine.attribution.scores.matrix import Scores
    from engine.attribution.search.similarity import Embeddings
    from engine.exchange.importing.methods import Imported


class Study(Layout):
    """A study's folder, opened for reading. `Study.open` checks it; `build` computes.

    study = Study.open("my-study")
    study.build()
    study.explain(17, k=5).supporting
    """

    def __init__(self, root: Path, spec: StudySpec) -> None:
        super().__init__(root)
        self.spec = spec
        self._indexes: dict[Path, Any] = {}

    # --- opening -------------------------------------------------------------------------------

    @classmethod
    def open(cls, root: str | Path) -> Study:
        """Open a study's folder.

        Raises:
            SpecError: No study.toml there, or it is wrong.
            StoreError: Made by a newer Dataloupe.
        """
        root = Path(root)
        if not root.is_dir():
            raise SpecError(f"{root} is no folder. `dataloupe init {root}` makes a study there.")
        study = cls(root, load_spec(root / "study.toml"))
        if study.format_file.exists():
            found = store.read_json(study.format_file).get("format")
            if not isinstance(found, int) or found > FORMAT:
                raise StoreError(
                    f"{root} was made by a newer Dataloupe (store format {found}; this one reads "
                    f"up to {FORMAT}). Upgrade Dataloupe, or build into another folder."
                )
            if found < FORMAT:
                raise StoreError(
                    f"{root} was made by an older Dataloupe (store format {found}; this one reads "
                    f"{FORMAT}). Remove {study.dataset_file.parent} and {study.format_file}, then "
                    f"`dataloupe build {root}` makes just those again."
                )
        return study

    @classmethod
    def create(cls, root: str | Path, spec_text: str) -> Study:
        """Make a folder with this study.toml. An existing study is never overwritten."""
        root = Path(root)
        target = root / "study.toml"
        if target.exists():
            raise SpecError(f"{target} exists already. Edit it, or choose another folder.")
        with store.atomic(target) as temporary:
            temporary.write_text(spec_text, encoding="utf-8")
        try:
            return cls.open(root)
        except SpecError:
            target.unlink()
            raise

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the study for writing; only one process can."""
        with (self.root / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"{self.root} is being built, or retrained for, by another process. Wait for "
                    "it, or stop it first."
                ) from error
            yield

    def build(
        self,
        device: str = "auto",
        workers: int | None = None,
        rebuild: str | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        ray: str | None = None,
    ) -> None:
        """Compute what is missing. See `engine.build.build`."""
        from engine.build.build import build

        build(self, device, workers, rebuild, on_progress, ray)

    def import_scores(self, kind: str, path: str | Path, **options: Any) -> Imported:
        """Bring in a score matrix made elsewhere. See
        `engine.exchange.importing.scores.import_scores`."""
        from engine.exchange.importing.methods import import_scores

        return import_scores(self, kind, path, **options)

    def import_bank(self, folder: str | Path, **options: Any) -> BankImport:
        """Bring in a run bank made elsewhere. See `engine.exchange.importing.bank.import_bank`."""
        from engine.exchange.importing.banks import import_bank

        return import_bank(self, folder, **options)

    def upload(self, *files: str | Path, name: str = "", architecture: str | None = None) -> Upload:
        """Check and keep checkpoints as one algorithm. See
        `engine.exchange.uploads.keeping.accept`."""
        from engine.exchange.uploads.keeping import accept_files

        return accept_files(self, [Path(file) for file in files], name, architecture)

    def compare(self, a: str, b: str, **options: Any) -> dict[str, Any]:
        """What two algorithms, or uploads by their id, do differently, and keep it.

        Args:
            options: As `parameters` of `engine.applications.modeldiff.job.run_job`.
        """
        from engine.applications.modeldiff.comparison import read_comparison
        from engine.applications.modeldiff.job import run_job

        done = run_job(self, {"a": a, "b": b, **options}, lambda done, total, what: None)
        return read_comparison(self, done["comparison"])

    def launch(self, port: int | None = None, open_browser: bool = True) -> str:
        """Serve the dashboard for this study from a process of its own; return its address.

        The process ends with this one (a notebook's kernel, a script).
        """
        from engine.running.launch import launch

        return launch(self.root, port=port, open_browser=open_browser)

    # --- the dataset ---------------------------------------------------------------------------

    @property
    def has_data(self) -> bool:
        return self.dataset_file.exists()

    @cached_property
    def dataset(self) -> Dataset:
        """What the data are. Raises StoreError before the data stage is built."""
        return Dataset(**store.read_json(self.dataset_file))

    def shards(self, split: Split) -> int:
        """Number of row shards of a split."""
        return -(-self.dataset.rows(split) // ROWS_PER_SHARD)

    def arrays(self, split: Split, verify: bool = False) -> list[dict[str, np.ndarray]]:
        """Memory-mapped arrays of a split, one dict a row shard."""
        return [
            store.read_tensors(self.arrays_file(split, shard), verify=verify)
            for shard in range(self.shards(split))
        ]

    def table(self, split: Split) -> pd.DataFrame:
        """`id`, `label` (class name) and whatever the task shows; one row an example."""
        table: pd.DataFrame = self._table(split).to_pandas()
        return table

    def _table(self, split: Split, columns: list[str] | None = None) -> pa.Table:
        shards = range(self.shards(split))
        parts = [store.read_table(self.table_file(split, n), columns=columns) for n in shards]
        return pa.concat_tables(parts, promote_options="permissive")

    def row(self, split: Split, example: int | str) -> int:
        """Turn a row number or an id into a row number.

        Raises:
            DataloupeError: There is no such example.
        """
        rows = self.dataset.rows(split)
        if isinstance(example, str):
            ids = self._table(split, ["id"])["id"].to_pylist()
            if example in ids:
                return int(ids.index(example))
            if not example.lstrip("-").isdigit():
                raise DataloupeError(f"{split} has no example with id {example!r} in {self.root}.")
            example = int(example)
        if not 0 <= example < rows:
            raise DataloupeError(
                f"{split} example {example} does not exist: rows are 0 to {rows - 1}."
            )
        return example

    def thumbnail(self, split: Split, row: int) -> Image:
        """One example's thumbnail, cut from its sprite sheet."""
        from PIL import Image

        from engine.data.thumbnails import SPRITES_PER_SHEET, crop

        sheet_number, position = divmod(row, SPRITES_PER_SHEET)
        with Image.open(self.sprite_file(split, sheet_number)) as sheet:
            return crop(sheet, position, self.dataset.cell)

    def stacked_arrays(self, split: Split) -> dict[str, Any]:
        """The arrays of a whole split, read from disk only where they are indexed by rows."""
        shards = self.arrays(split)
        if len(shards) == 1:
            return shards[0]
        return {name: ShardedRows([shard[name] for shard in shards]) for name in shards[0]}

    # --- what was computed ---------------------------------------------------------------------

    @property
    def uploads(self) -> dict[str, Upload]:
        """What people uploaded to compare, by the name it has as an algorithm; newest first."""
        return read_uploads(self)

    @property
    def algorithms(self) -> dict[str, AlgorithmSpec]:
        """Those of study.toml, which a build makes, then the uploaded ones."""
        uploaded = {name: upload.algorithm for name, upload in self.uploads.items()}
        return {**self.spec.algorithms, **uploaded}

    def algorithm(self, name: str | None = None) -> str:
        """The name itself if the study has it, or its first algorithm for None."""
        if name is None:
            return next(iter(self.spec.algorithms))
        if name not in self.algorithms:
            known = ", ".join(self.algorithms)
            raise DataloupeError(f"{self.root} has no algorithm {name!r}; it has {known}.")
        return name

    def checkpoints(self, algorithm: str) -> int:
        """How many checkpoints the spec asks for."""
        spec = self.algorithms[algorithm]
        return len(spec.weights) or spec.checkpoints

    def seed(self, checkpoint: int) -> int:
        """Seed of a checkpoint; the same for all algorithms, so that they compare in pairs."""
        return int(store.fingerprint("seed", self.spec.seed, checkpoint)[:7], 16)

    def wants_bank(self, algorithm: str) -> bool:
        """Whether the algorithm has a run bank, or will have when the build is done."""
        if self.bank_import_file(algorithm).exists():
            return True
        return bool(self.subset_runs) and algorithm in self.spec.algorithms

    def is_tuned(self, algorithm: str) -> bool:
        """Whether validation runs decide settings of TRAK."""
        return bool(self.wants_bank(algorithm) and self.spec.trak.tunable)

    def user_file(self, path: str) -> Path:
        """A file that study.toml names, relative to the study's folder."""
        return self.root / Path(path).expanduser()

    def has_predictions(self, algorithm: str) -> bool:
        return all(self.predictions_file(algorithm, split).exists() for split in SPLITS)

    def scored_methods(self, algorithm: str) -> list[str]:
        """Methods whose scores are there, ranked or not; TRAK first."""
        folder = self.algorithm_folder(algorithm) / "methods"
        others = sorted(path.parent.name for path in folder.glob("*/method.json"))
        return [*([TRAK] if self.weighting_file(algorithm).exists() else []), *others]

    def imports(self, algorithm: str | None = None) -> dict[str, Import]:
        """Methods whose scores were made elsewhere, and where they came from."""
        algorithm = self.algorithm(algorithm)
        found = {}
        for method in self.scored_methods(algorithm):
            if method != TRAK:
                about = store.read_json(self.method_file(algorithm, method))
                if "import" in about:
                    found[method] = Import(**about["import"])
        return found

    def methods(self, algorithm: str | None = None) -> list[str]:
        """Methods whose scores can be shown, the default first."""
        algorithm = self.algorithm(algorithm)
        ranked = (self.algorithm_folder(algorithm) / "search").glob("*/search.json")
        names = [path.parent.name for path in ranked]
        whole = [n for n in names if n == TRAK or self.method_file(algorithm, n).exists()]
        quality = self.quality(algorithm)
        first = TRAK if quality is None else quality.preferred
        return sorted(whole, key=lambda name: (name != first, name != TRAK, name))

    def method(self, algorithm: str, name: str | None = None) -> str:
        """The name itself if the algorithm has scores by this method, or its default for None.

        Raises:
            DataloupeError: There is no such method. StoreError: There are no scores yet.
        """
        methods = self.methods(algorithm)
        if not methods:
            raise StoreError(
                f"{self.root} has no scores yet. `dataloupe build {self.root}` makes them."
            )
        if name is not None and name not in methods:
            known = ", ".join(methods)
            raise DataloupeError(f"{algorithm} has no scores by method {name!r}; it has {known}.")
        return name or methods[0]

    def has_scores(self, algorithm: str, method: str | None = None) -> bool:
        """Whether Explain can be shown: by this method, or by any."""
        methods = self.methods(algorithm)
        return bool(methods) if method is None else method in methods

    def predictions(self, split: Split, algorithm: str | None = None) -> pd.DataFrame:
        """`predicted` (class name), `correct`, `confidence`, `margin`; one row an example.

        `confidence` is the mean probability of the predicted class over the checkpoints,
        `margin` the mean model output (of the true label).
        """
        path = self.predictions_file(self.algorithm(algorithm), split)
        table: pd.DataFrame = store.read_table(path).to_pandas()
        return table

    def probabilities(self, split: Split, row: int, algorithm: str | None = None) -> np.ndarray:
        """Probability of every class, mean over the checkpoints: float64 `[n_classes]`."""
        algorithm = self.algorithm(algorithm)
        total = np.zeros(len(self.dataset.classes))
        checkpoints = self.checkpoints(algorithm)
        for checkpoint in range(checkpoints):
            outputs = store.read_tensors(self.outputs_file(algorithm, checkpoint, split))
            total += softmax(outputs["logits"][row]) / checkpoints
        return total

    def method_title(self, algorithm: str, method: str) -> str:
        """What to call a method, ranked or not. Raises StoreError where there are no scores."""
        if method == TRAK:
            return "TRAK"
        title: str = store.read_json(self.method_file(algorithm, method))["badge"]["method"]
        return title

    def badge(self, algorithm: str | None = None, method: str | None = None) -> Badge:
        """How the scores were made and how good they are."""
        algorithm = self.algorithm(algorithm)
        method = self.method(algorithm, method)
        search = store.read_json(self.search_file(algorithm, method))
        found = {
            "index": search["kind"],
            "recall": search["recall"],
            "recall_at": search["recall_at"],
        }
        quality = self.quality(algorithm)
        if quality is not None and method in quality.methods:
            measured = quality.methods[method]
            found |= {
                "lds": measured.lds.mean,
                "lds_low": measured.lds.low,
                "lds_high": measured.lds.high,
            }
            if measured.units is not None:
                found |= {
                    "slope": measured.units.slope.mean,
                    "slope_low": measured.units.slope.low,
                    "slope_high": measured.units.slope.high,
                    "r_squared": measured.units.r_squared,
                }
        if method != TRAK:
            return Badge(**store.read_json(self.method_file(algorithm, method))["badge"], **found)
        road = store.read_json(self.road_file(algorithm))
        return Badge(
            method=self.method_title(algorithm, method),
            road=road["kind"],
            checkpoints=search["checkpoints"],
            wanted=self.uploads[algorithm].wanted if algorithm in self.uploads else 0,
            features=None if road["kind"] == "dual-exact" else road["proj_dim"],
            damping=road["damping"],
            soft_threshold=road.get("soft_threshold", 0.0),
            reason=road["reason"],
            **found,
        )

    def quality(self, algorithm: str | None = None) -> Quality | None:
        """How far each method can be trusted; None until it is measured on subset runs.

        Shared between callers: never change it.
        """
        path = self.quality_file(self.algorithm(algorithm))
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        return _read_quality(path, status.st_mtime_ns, status.st_size)

    def measured_quality(self, algorithm: str | None = None) -> Quality:
        """How far each method can be trusted.

        Raises:
            StoreError: It is not measured, with what is missing for it.
        """
        algorithm = self.algorithm(algorithm)
        quality = self.quality(algorithm)
        if quality is not None:
            return quality
        build = f"`dataloupe build {self.root}`"
        steps = {step.stage: step for step in self.progress() if step.algorithm == algorithm}
        runs = steps.get("bank")
        if runs is None:
            raise StoreError(
                f"How far scores of {algorithm} can be trusted is measured on models trained on "
                "random parts of the data, and there are none: add `[subset_runs]` with "
                f"`masks = 200` to {self.spec_file}, then {build}."
            )
        if not runs.complete:
            raise StoreError(
                f"Scores of {algorithm} are measured when all subset runs are there: so far "
                f"{runs.done:,} of {runs.total:,} are. {build} makes the others."
            )
        raise StoreError(f"Scores of {algorithm} are not measured yet. {build} does it.")

    def predicted_and_actual(
        self, algorithm: str | None = None, method: str | None = None
    ) -> dict[str, np.ndarray]:
        """What a method predicts of the test runs, memory-mapped float32 `[n_test, runs]`.

        `predicted`: calibrated outputs, `actual`: the runs' outputs, and, where the method gives
        intervals, `deviation`: the standard deviation it states for each.
        """
        algorithm = self.algorithm(algorithm)
        path = self.predicted_file(algorithm, self.method(algorithm, method))
        return store.read_tensors(path)

    def lds_of_each(self, algorithm: str | None = None, method: str | None = None) -> np.ndarray:
        """LDS of every test example by itself, on the test runs: float64 `[n_test]`."""
        from engine.attribution.evaluation.lds import spearman

        outputs = self.predicted_and_actual(algorithm, method)
        return spearman(outputs["predicted"], outputs["actual"])

    def removal(
        self,
        test: int,
        scores: np.ndarray,
        algorithm: str | None = None,
        method: str | None = None,
    ) -> Measured | None:
        """How a test example's margin would change without some training examples, on average.

        Args:
            scores: Those examples' scores for it, as `influences` gives them.

        Returns:
            With its 95 % interval (`engine.attribution.evaluation.effects`); None where scores are
            not calibrated.
        """
        from engine.attribution.evaluation.effects import removal

        algorithm = self.algorithm(algorithm)
        method = self.method(algorithm, method)
        quality = self.quality(algorithm)
        slope = self._slope(algorithm, method)
        if quality is None or slope is None:
            return None
        outputs = self.predicted_and_actual(algorithm, method)
        residuals = outputs["actual"][test] - outputs["predicted"][test]
        return removal(scores, slope, residuals, self.dataset.n_train, quality.alpha)

    def _slope(self, algorithm: str, method: str) -> Measured | None:
        """Change of the margin for a score of 1; None where scores are not calibrated."""
        quality = self.quality(algorithm)
        measured = None if quality is None else quality.methods.get(method)
        return None if measured is None or measured.units is None else measured.units.slope

    def counterfactual(
        self,
        removed: Iterable[int | str],
        algorithm: str | None = None,
        method: str | None = None,
    ) -> Counterfactual:
        """What removing training examples would do to every test prediction, on average.

        Args:
            removed: Rows or ids of training examples, in any order.

        Raises:
            DataloupeError: There is no such example, or none or all are removed.
            StoreError: There are no scores yet.
        """
        from engine.attribution.evaluation.counterfactual import Counterfactual
        from engine.attribution.evaluation.effects import changes

        algorithm = self.algorithm(algorithm)
        method = self.method(algorithm, method)
        rows = self.training_rows(removed)
        totals = self.score_matrix(algorithm, method).sums(rows)
        labels = self._table("test", ["label"])["label"].to_pandas().to_numpy()
        members = {str(label): labels == label for label in sorted(set(labels))}
        quality, slope = self.quality(algorithm), self._slope(algorithm, method)
        low = high = None
        if quality is None or slope is None:
            change = -totals
            means = {label: float(change[mine].mean()) for label, mine in members.items()}
            by_class = {label: Measured(mean, mean, mean) for label, mean in means.items()}
        else:
            outputs = self.predicted_and_actual(algorithm, method)
            residuals = outputs["actual"] - outputs["predicted"]
            n_train, alpha = self.dataset.n_train, quality.alpha
            variances = residuals.var(axis=1, dtype=np.float64, ddof=1)
            found = changes(totals, len(rows), slope, variances, n_train, alpha)
            change, low, high = found.change, found.change - found.reach, found.change + found.reach
            by_class = {label: found.mean(mine) for label, mine in members.items()}
        trained = self._table("train", ["label"])["label"].to_pandas().to_numpy()
        kept = set(np.delete(trained, rows))
        before = None
        if self.has_predictions(algorithm):
            before = self.predictions("test", algorithm)["margin"].to_numpy(np.float64)
        return Counterfactual(
            algorithm=algorithm,
            method=method,
            removed=rows,
            calibrated=slope is not None,
            change=change,
            low=low,
            high=high,
            before=before,
            by_class=by_class,
            emptied=sorted(str(label) for label in set(trained) - kept),
        )

    def training_rows(self, examples: Iterable[int | str]) -> np.ndarray:
        """The training rows of rows or ids, ascending int64, each once.

        Raises:
            DataloupeError: One does not exist, or they are none or all there are.
        """
        examples = list(examples)
        n_train = self.dataset.n_train
        places: dict[str, int] = {}
        if any(isinstance(example, str) for example in examples):
            ids = self._table("train", ["id"])["id"].to_pylist()
            places = {id_: row for row, id_ in reversed(list(enumerate(ids)))}

        def row_of(example: int | str) -> int | None:
            if isinstance(example, str):
                if example in places:
                    return places[example]
                if not (example.isascii() and example.isdigit() and len(example) <= 12):
                    return None
            return int(example) if 0 <= int(example) < n_train else None

        found = {example: row_of(example) for example in examples}
        unknown = [str(example) for example, row in found.items() if row is None]
        if unknown:
            named = ", ".join(one if len(one) <= 40 else one[:39] + "…" for one in unknown[:5])
            more = f" and {len(unknown) - 5:,} others" if len(unknown) > 5 else ""
            raise DataloupeError(
                f"{self.root} has no training examples {named}{more}: give ids, or rows from 0 "
                f"to {n_train - 1}."
            )
        rows = np.unique(np.array([row for row in found.values() if row is not None], np.int64))
        if not len(rows):
            raise DataloupeError("The removal set is empty: name at least one training example.")
        if len(rows) == n_train:
            raise DataloupeError(
                f"The removal set is all {n_train:,} training examples, which leaves nothing."
            )
        return rows

    def score_matrix(self, algorithm: str | None = None, method: str = TRAK) -> Scores:
        """The attributions as an object that computes any part of `[n_test, n_train]`."""
        from engine.attribution.scores.dense import DenseScores

        algorithm = self.algorithm(algorithm)
        if method != TRAK:
            shards = range(self.shards("test"))
            files = [self.method_scores_file(algorithm, method, shard) for shard in shards]
            stored = [store.read_tensors(file) for file in files]
            if "indptr" in stored[0]:
                from engine.attribution.scores.sparse import SparseScores, from_stored

                n_train = self.dataset.n_train
                return SparseScores([from_stored(shard, n_train) for shard in stored])
            return DenseScores([shard["scores"] for shard in stored])
        weighting = store.read_tensors(self.weighting_file(algorithm))
        if store.read_json(self.road_file(algorithm))["kind"] == "primal":
            checkpoints = self.checkpoints(algorithm)
            return self.factor_scores(algorithm, checkpoints, **weighting)
        files = [self.scores_file(algorithm, shard) for shard in range(self.shards("test"))]
        return DenseScores(
            [store.read_tensors(f)["scores"] for f in files], weighting.get("threshold")
        )

    def factor_scores(
        self,
        algorithm: str,
        checkpoints: int,
        out_to_loss: np.ndarray,
        threshold: np.ndarray | None = None,
    ) -> FactorScores:
        """TRAK by its first checkpoints, on the primal road. See `FactorScores` for the arrays."""
        from engine.attribution.scores.factors import FactorScores

        first, shards = range(checkpoints), range(self.shards("train"))
        features = [[self.features_file(algorithm, m, n) for n in shards] for m in first]
        factors = [self.factors_file(algorithm, m) for m in first]
        return FactorScores(
            features=[[store.read_tensors(f)["features"] for f in files] for files in features],
            factors=[store.read_tensors(f)["factors"] for f in factors],
            out_to_loss=out_to_loss,
            threshold=threshold,
        )

    def scores(
        self,
        tests: Sequence[int] | np.ndarray,
        algorithm: str | None = None,
        method: str | None = None,
    ) -> np.ndarray:
        """Attributions `[len(tests), n_train]`, float32. Positive supports, negative opposes."""
        algorithm = self.algorithm(algorithm)
        rows = np.array([self.row("test", int(test)) for test in tests], dtype=np.int64)
        return self.score_matrix(algorithm, self.method(algorithm, method)).rows(rows)

    def top(self, algorithm: str | None = None, method: str | None = None) -> dict[str, np.ndarray]:
        """Stored top-k of both signs for every test example, memory-mapped.

        `support_index`, `oppose_index` int32 `[n_test, k]` (training rows, strongest first, -1
        where there is no further example of that sign); `support_score`, `oppose_score` float32.
        """
        algorithm = self.algorithm(algorithm)
        return store.read_tensors(self.top_test_file(algorithm, self.method(algorithm, method)))

    def top_of_training(
        self, row: int, algorithm: str | None = None, method: str | None = None
    ) -> dict[str, np.ndarray]:
        """The reverse for one training row: the test rows it supports and opposes most, `[k]`."""
        algorithm = self.algorithm(algorithm)
        method = self.method(algorithm, method)
        shard = store.read_tensors(self.top_train_file(algorithm, method, row // ROWS_PER_SHARD))
        return {name: array[row % ROWS_PER_SHARD] for name, array in shard.items()}

    def principal_directions(
        self, most: int, algorithm: str | None = None, method: str | None = None
    ) -> np.ndarray | None:
        """Training examples along the first principal directions of the attributions, rows of which
        count alike however large their scores.

        Returns:
            float32 `[n_train, d]`, d ≤ `most`, strongest direction first, each turned so that its
            entries sum to a positive number; None where the attribution space is not stored.
        """
        algorithm = self.algorithm(algorithm)
        method = self.method(algorithm, method)
        files = [self.train_vectors_file(algorithm, method, n) for n in range(self.shards("train"))]
        if not all(file.exists() for file in files):
            return None
        shards = [store.read_tensors(file)["vectors"][:, :most] for file in files]
        found: np.ndarray = np.concatenate(shards)
        return found * np.where(found.sum(axis=0) < 0, np.float32(-1), np.float32(1))

    def totals(
        self, algorithm: str | None = None, method: str | None = None
    ) -> dict[str, np.ndarray]:
        """Sums of scores, positive and negative apart, float32, memory-mapped.

        `train_support`, `train_oppose` `[n_train]`: of each training example over all test
        predictions; `test_support`, `test_oppose` `[n_test]`: of each prediction over all training
        examples.
        """
        algorithm = self.algorithm(algorithm)
        return store.read_tensors(self.totals_file(algorithm, self.method(algorithm, method)))

    def influences(
        self, test: int, k: int, algorithm: str | None = None, method: str | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The k strongest training rows of both signs for one test row.

        Returns (support rows, support scores, oppose rows, oppose scores), strongest first. Up to
        the stored k they are exact; beyond it they come from the FAISS index, re-ranked exactly.
        """
        algorithm = self.algorithm(algorithm)
        method = self.method(algorithm, method)
        top = self.top(algorithm, method)
        k = min(k, self.dataset.n_train)
        if k > top["support_index"].shape[1]:
            top = self._search(test, k, algorithm, method)
            test = 0
        parts = []
        for sign in ("support", "oppose"):
            rows, scores = top[f"{sign}_index"][test, :k], top[f"{sign}_score"][test, :k]
            parts += [rows[rows >= 0], scores[rows >= 0]]
        return parts[0], parts[1], parts[2], parts[3]

    def index(self, algorithm: str, method: str) -> Any:
        """The FAISS index over the training examples' vectors, kept once it is read."""
        return self._index(self.index_file(algorithm, method))

    def _index(self, path: Path) -> Any:
        from engine.attribution.search.vector_index import index_from_array

        if path not in self._indexes:
            self._indexes[path] = index_from_array(store.read_tensors(path)["index"])
        return self._indexes[path]

    def _search(self, test: int, k: int, algorithm: str, method: str) -> dict[str, np.ndarray]:
        from engine.attribution.search.vector_index import candidates_for, search

        scores = self.score_matrix(algorithm, method)
        tests = np.array([test])
        vectors = store.read_tensors(self.test_vectors_file(algorithm, method))["vectors"]
        measured = store.read_json(self.search_file(algorithm, method))
        candidates = candidates_for(k, measured)
        index = self.index(algorithm, method)
        return vars(search(index, vectors[tests], partial(scores.pairs, tests), k, candidates))

    def explain(
        self,
        test: int | str,
        k: int = 10,
        algorithm: str | None = None,
        method: str | None = None,
    ) -> Explanation:
        """Explain one test prediction by its k strongest training examples of each sign.

        Raises:
            DataloupeError: No such example, algorithm or method, or k is not positive.
            StoreError: The scores are not built yet.
        """
        algorithm = self.algorithm(algorithm)
        if k < 1:
            raise DataloupeError(f"k must be at least 1, not {k}.")
        method = self.method(algorithm, method)
        row = self.row("test", test)
        example = self.table("test").iloc[row]
        support, support_scores, oppose, oppose_scores = self.influences(row, k, algorithm, method)
        supporting, opposing = self.named((support, support_scores), (oppose, oppose_scores))
        return Explanation(
            study=self.spec.name,
            algorithm=algorithm,
            method=method,
            row=row,
            id=str(example["id"]),
            label=str(example["label"]),
            **self._prediction(row, algorithm),
            supporting=supporting,
            opposing=opposing,
            badge=self.badge(algorithm, method),
        )

    def named(self, *sides: tuple[np.ndarray, np.ndarray]) -> list[list[Influence]]:
        """Training rows and their scores, with ids and labels: a list for each side."""
        table = self.table("train")
        return [
            [
                Influence(int(row), str(id_), str(label), float(score))
                for row, id_, label, score in zip(
                    rows, table["id"].iloc[rows], table["label"].iloc[rows], scores, strict=True
                )
            ]
            for rows, scores in sides
        ]

    def has_training_datamodels(self, algorithm: str) -> bool:
        """Whether it is known what the models' outputs on training examples hang on."""
        shards = range(self.shards("train"))
        return all(self.training_datamodels_file(algorithm, n).exists() for n in shards)

    def training_datamodel(
        self, train: int | str, algorithm: str | None = None
    ) -> TrainingDatamodel:
        """What one training example's own output hangs on, itself included.

        Raises:
            DataloupeError: There is no such example.
            StoreError: study.toml does not ask for it, or it is not built yet.
        """
        algorithm, row = self.algorithm(algorithm), self.row("train", train)
        if not self.has_training_datamodels(algorithm):
            raise StoreError(
                f"{self.root} has no datamodels of training examples. Set training_targets = true "
                f"under [subset_runs] in study.toml, then: dataloupe build {self.root}"
            )
        shard, place = divmod(row, ROWS_PER_SHARD)
        stored = store.read_tensors(self.training_datamodels_file(algorithm, shard))
        inside = slice(*(int(end) for end in stored["indptr"][place : place + 2]))
        rows, weights = np.array(stored["indices"][inside]), np.array(stored["values"][inside])
        itself = rows == row
        return TrainingDatamodel(
            row=row,
            itself=float(weights[itself].sum()),
            rows=rows[~itself],
            weights=weights[~itself],
            bias=float(stored["bias"][place]),
            correlation=float(stored["correlation"][place]),
        )

    def _prediction(self, row: int, algorithm: str) -> dict[str, Any]:
        """What the model says of a test example: None wherever it has not been asked."""
        if not self.has_predictions(algorithm):
            return dict.fromkeys(("predicted", "correct", "confidence", "margin"))
        said = self.predictions("test", algorithm).iloc[row]
        return {
            "predicted": str(said["predicted"]),
            "correct": bool(said["correct"]),
            "confidence": float(said["confidence"]),
            "margin": float(said["margin"]),
        }

    def has_live(self, algorithm: str) -> bool:
        """Whether it is decided if examples from outside can be attributed."""
        return self.live_file(algorithm).exists()

    def live(self, algorithm: str | None = None) -> Live:
        """What is kept for examples from outside. Raises StoreError before it is built."""
        return Live(**store.read_json(self.live_file(self.algorithm(algorithm))))

    def has_map(self, algorithm: str, method: str, kind: MapKind) -> bool:
        """Whether a map of this method's attribution space is drawn."""
        return self.map_file(algorithm, method, kind).exists()

    def map(
        self, kind: MapKind = "umap", algorithm: str | None = None, method: str | None = None
    ) -> dict[str, np.ndarray]:
        """Where every example lies in the plane: `train`, `test` float32 `[n, 2]`, memory-mapped.

        Raises StoreError before it is built.
        """
        algorithm = self.algorithm(algorithm)
        return store.read_tensors(self.map_file(algorithm, self.method(algorithm, method), kind))

    # --- which training examples are alike -----------------------------------------------------

    def has_neighbours(self, algorithm: str) -> bool:
        """Whether it is known which training examples are alike, or why it cannot be."""
        return self.similarity_file(algorithm).exists()

    def similarity(self, algorithm: str | None = None) -> Similarity:
        """What likeness is measured by. Raises StoreError before it is built."""
        found = store.read_json(self.similarity_file(self.algorithm(algorithm)))
        if not found["checkpoints"]:
            return Similarity(0, found["reason"])
        return Similarity(
            checkpoints=found["checkpoints"],
            reason=found["reason"],
            stored=found["recall_at"],
            index=found["kind"],
            recall=found["recall"],
        )

    def embeddings(
        self, split: Split, checkpoints: int, algorithm: str | None = None
    ) -> Embeddings:
        """The embeddings of a split at the first `checkpoints` models, memory-mapped."""
        from engine.attribution.search.similarity import Embeddings

        algorithm = self.algorithm(algorithm)
        files = [self.outputs_file(algorithm, m, split) for m in range(checkpoints)]
        return Embeddings([store.read_tensors(file)["embeddings"] for file in files])

    def neighbours(
        self, split: Split, row: int, k: int, algorithm: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k training rows that the model sees as most like one example, itself left out.

        Returns (rows, similarities), most similar first: mean cosines of the embeddings. Up to
        the stored k they are read; beyond it they come from the FAISS index, re-ranked exactly.

        Raises:
            DataloupeError: The model gives no embeddings. StoreError: They are not built yet.
        """
        algorithm = self.algorithm(algorithm)
        similarity = self.similarity(algorithm)
        if not similarity.checkpoints:
            raise DataloupeError(f"{algorithm} has no neighbours: {similarity.reason}.")
        k = min(k, self.dataset.n_train - (split == "train"))
        path = self.neighbours_file(algorithm, split, row // ROWS_PER_SHARD)
        found = {
            name: part[row % ROWS_PER_SHARD] for name, part in store.read_tensors(path).items()
        }
        if k > len(found["index"]):
            found = self._nearest(split, row, k, algorithm)
        rows, similarities = found["index"][:k], found["similarity"][:k]
        return rows[rows >= 0], similarities[rows >= 0]

    def _nearest(self, split: Split, row: int, k: int, algorithm: str) -> dict[str, np.ndarray]:
        from engine.attribution.search.similarity import nearest
        from engine.attribution.search.vector_index import candidates_for

        measured = store.read_json(self.similarity_file(algorithm))
        used, at = measured["checkpoints"], np.array([row])
        queries = self.embeddings(split, used, algorithm).rows(at)
        candidates = candidates_for(k, measured)
        index = self._index(self.neighbours_index_file(algorithm))
        itself = at if split == "train" else None
        training = self.embeddings("train", used, algorithm)
        found = nearest(index, training, queries, k, candidates, itself)
        return {name: part[0] for name, part in vars(found).items()}

    # --- the run bank --------------------------------------------------------------------------

    @property
    def subset_runs(self) -> list[tuple[int, int]]:
        """(mask, seed) of every subset run that the spec asks for."""
        runs = self.spec.subset_runs
        return [(mask, seed) for mask in range(runs.masks) for seed in range(runs.seeds)]

    def run_seed(self, mask: int, seed: int) -> int:
        """Seed of a subset run's training; the same for all algorithms."""
        return int(store.fingerprint("subset run", self.spec.seed, mask, seed)[:7], 16)

    def finished_runs(self, algorithm: str) -> set[tuple[int, int]]:
        """(mask, seed) of those subset runs that are there."""
        folder = self.bank_folder(algorithm)
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        return {run for run in self.subset_runs if self.run_file(algorithm, *run).name in names}

    def bank_import(self, algorithm: str | None = None) -> BankImport | None:
        """Where the algorithm's run bank came from; None where this study trains it."""
        path = self.bank_import_file(self.algorithm(algorithm))
        return BankImport(**store.read_json(path)) if path.exists() else None

    def has_bank(self, algorithm: str) -> bool:
        """Whether there is a run bank, whole: an imported one, or the one the spec asks for."""
        if self.bank_import_file(algorithm).exists():
            return True
        wanted = self.subset_runs
        return bool(wanted) and len(self.finished_runs(algorithm)) == len(wanted)

    def bank(self, algorithm: str | None = None, train: bool = True) -> RunBank:
        """The run bank: masks, and what models trained on them say.

        Args:
            train: Also read the outputs on training examples, the larger part.

        Raises:
            StoreError: There is none, some runs are not finished yet, or one cannot be used.
        """
        algorithm = self.algorithm(algorithm)
        if about := self.bank_import(algorithm):
            files = [
                self.imported_runs_file(algorithm, about.fingerprint, n)
                for n in range(about.shards)
            ]
            stored = map(store.read_tensors, files)
            return run_bank.gather(about, stored, self.dataset.n_train, train)
        self._check_that_bank_is_whole(algorithm)
        n_train, runs = self.dataset.n_train, self.spec.subset_runs
        masks = np.empty((runs.masks, n_train), dtype=bool)
        outputs = {
            split: np.empty((runs.masks, self.dataset.rows(split)), np.float32)
            for split in SPLITS
            if train or split == "test"
        }
        for mask in range(runs.masks):
            shards = [self._read_run(algorithm, mask, seed) for seed in range(runs.seeds)]
            masks[mask] = run_bank.unpack(shards[0]["mask"], n_train)
            for split, rows in outputs.items():
                rows[mask] = run_bank.mean_of_seeds(shard[split] for shard in shards)
        return RunBank(
            masks=masks,
            train=outputs.get("train"),
            test=outputs["test"],
            seeds=np.full(runs.masks, runs.seeds),
            numbers=np.arange(runs.masks),
        )

    def _check_that_bank_is_whole(self, algorithm: str) -> None:
        wanted, found = len(self.subset_runs), len(self.finished_runs(algorithm))
        if not wanted:
            raise StoreError(
                f"{self.root} has no run bank of {algorithm}: set `masks` under [subset_runs] in "
                f"study.toml, then `dataloupe build {self.root}`; or `dataloupe import bank`."
            )
        if found < wanted:
            raise StoreError(
                f"The run bank of {algorithm} has {found} of {wanted} runs so far. "
                f"`dataloupe build {self.root}` makes the others."
            )

    def _read_run(self, algorithm: str, mask: int, seed: int) -> dict[str, np.ndarray]:
        path = self.run_file(algorithm, mask, seed)
        shard = store.read_tensors(path)
        for split in SPLITS:
            if fault := run_bank.fault(shard[split]):
                raise store.broken(path, f"{fault} on the {split} split")
        return shard

    # --- retrained -----------------------------------------------------------------------------

    def verifications(self, algorithm: str | None = None) -> list[Verification]:
        """Every removal that was verified by retraining, oldest first."""
        from engine.applications.verification import read_verifications

        return read_verifications(self, self.algorithm(algorithm))

    def verify(self, removed: Iterable[int | str], **options: Any) -> Verification:
        """Retrain without some training examples. See `engine.applications.verification.verify`."""
        from engine.applications.verification import verify

        return verify(self, removed, **options)

    # --- how far it is -------------------------------------------------------------------------

    def progress(self) -> list[Progress]:
        """What is built, stage by stage, counted from the files that are there."""
        stages = [Progress("data", None, int(self.has_data), 1)]
        for name in self.spec.algorithms:
            total = self.checkpoints(name)
            trained = sum(self.outputs_file(name, m, "train").exists() for m in range(total))
            scored = sum(
                self.dual_file(name, m).exists() or self.factors_file(name, m).exists()
                for m in range(total)
            )
            stages += [
                Progress("checkpoints", name, trained, total),
                Progress("predictions", name, int(self.has_predictions(name)), 1),
                Progress("neighbours", name, int(self.has_neighbours(name)), 1),
                Progress("trak", name, scored, total),
                Progress("search", name, int(self.has_scores(name, TRAK)), 1),
                Progress("live", name, int(self.has_live(name)), 1),
            ]
            if self.wants_bank(name):
                stages.append(self._bank_progress(name))
                if self.is_tuned(name):
                    chosen = self.tuning_file(name).exists()
                    stages.append(Progress("tuning", name, int(chosen), 1))
                fitted = sum(self.method_file(name, m).exists() for m in (DATAMODEL, HYBRID))
                training = self.spec.subset_runs.training_targets
                fitted += int(training and self.has_training_datamodels(name))
                stages.append(Progress("datamodels", name, fitted, 2 + int(training)))
                judged = self.quality_file(name).exists()
                stages.append(Progress("quality", name, int(judged), 1))
        for name in self.spec.algorithms:
            wanted = [(m, kind) for m in self.scored_methods(name) or [TRAK] for kind in MAP_KINDS]
            drawn = sum(self.map_file(name, method, kind).exists() for method, kind in wanted)
            stages.append(Progress("map", name, drawn, len(wanted)))
        return stages

    def _bank_progress(self, algorithm: str) -> Progress:
        if self.bank_import_file(algorithm).exists():
            return Progress("bank", algorithm, 1, 1)
        finished, wanted = self.finished_runs(algorithm), self.subset_runs
        return Progress("bank", algorithm, len(finished), len(wanted))


@lru_cache(maxsize=64)
def _read_quality(path: Path, changed: int, size: int) -> Quality:
    """Parsed once for each state of the file, as every page asks for it several times."""
    return Quality.from_dict(store.read_json(path))
