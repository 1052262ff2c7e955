"""Names of the files of a study. No other module knows them.

study.toml                                   what to compute (written by people)
store.json                                   format of this folder
slices/0123456789abcdef.json                 a saved slice: its name and its filters
sets/0123456789abcdef.json                   a removal set: training rows, how they were chosen
data/dataset.json                            what the dataset is, and its fingerprint
data/begun.json                              what the source holds, until all of it is read
data/{split}/00000.safetensors               what models are fed, in row shards
data/{split}/00000.parquet                   id, label, columns to show and filter by
data/{split}/00000.webp                      thumbnails, 64 to a sprite sheet
jobs/jobs.sqlite                             the queue of long work (engine.running.jobs)
jobs/00001.log                               what a job has printed
jobs/runner.log, jobs/runner.lock            of the process that runs jobs
algorithms/NAME/checkpoints/000.safetensors  trained weights
algorithms/NAME/outputs/000-{split}.safetensors    logits, model outputs, out-to-loss
algorithms/NAME/predictions/{split}.parquet  what the checkpoints say together
algorithms/NAME/neighbours/index.safetensors          a serialised FAISS index of embeddings
algorithms/NAME/neighbours/{split}-00000.safetensors  nearest training examples, in row shards
algorithms/NAME/neighbours/similarity.json   what likeness is the mean over, measured recall
algorithms/NAME/tuning/tuning.json           settings of TRAK that validation runs decided
algorithms/NAME/trak/road.json               how attributions are computed, and why so
algorithms/NAME/trak/dual/000.safetensors    one checkpoint's scores (dual roads)
algorithms/NAME/trak/features/000/00000.safetensors   train features in row shards (primal)
algorithms/NAME/trak/factors/000.safetensors solved test features (primal)
algorithms/NAME/trak/scores/00000.safetensors         scores of a block of test rows (dual)
algorithms/NAME/trak/weighting.safetensors   mean out-to-loss, soft threshold
algorithms/NAME/live/000/solver.safetensors  solves for examples from outside
algorithms/NAME/live/000/00000.safetensors   traces of training examples in row shards (dual)
algorithms/NAME/live/live.json               how many checkpoints are kept so, and why
algorithms/NAME/methods/METHOD/method.json   another method's scores: what they are
algorithms/NAME/methods/METHOD/scores/00000.safetensors   a block of its test rows
algorithms/NAME/methods/METHOD/fit/00000.safetensors  biases and how each fit came out
algorithms/NAME/methods/METHOD/intervals/00000.safetensors  what it foretells of test runs
algorithms/NAME/methods/datamodel/training/00000.safetensors  datamodels of training examples
algorithms/NAME/search/METHOD/top/test.safetensors    top-k of both signs for every test example
algorithms/NAME/search/METHOD/top/train-00000.safetensors   the reverse, in row shards
algorithms/NAME/search/METHOD/totals.safetensors      sums of scores of both signs, both sides
algorithms/NAME/search/METHOD/vectors/       the attribution space: test.safetensors, train-…
algorithms/NAME/search/METHOD/index.safetensors       a FAISS index of the train vectors
algorithms/NAME/search/METHOD/search.json    which kind of index, and its measured recall
algorithms/NAME/maps/METHOD-umap.safetensors    where every example lies on a map
algorithms/NAME/bank/00017-0.safetensors     subset run: mask 17, seed 0, and its outputs
algorithms/NAME/imported-bank/bank.json      subset runs made elsewhere: what they are
algorithms/NAME/imported-bank/HASH-00000.safetensors   masks and outputs of a part of them
algorithms/NAME/quality/quality.json         how far each method's scores can be trusted
algorithms/NAME/quality/METHOD.safetensors   predicted and actual outputs of the test runs
algorithms/NAME/retrained/HASH/0.safetensors outputs of one model without a removal set (HASH)
algorithms/NAME/retrained/HASH/0-weights.safetensors   its weights, if trained with all data
algorithms/NAME/verifications/0123456789abcdef.json   a removal, predicted and retrained
algorithms/NAME/unlearning/unlearned/HASH/0.safetensors    logits of a model after unlearning
algorithms/NAME/unlearning/changes/0123456789abcdef.safetensors   what should change in logits
algorithms/NAME/unlearning/searches/0123456789abcdef.json  hyper-parameters that did best
algorithms/NAME/unlearning/audits/0123456789abcdef.json    how near the oracles methods came
algorithms/NAME/unlearning/models/unlearned-HASH.safetensors  a model to take away, and
algorithms/NAME/unlearning/models/unlearned-HASH.json      its certificate
triage/0123456789abcdef.json                 one change of a prediction's tags and note
uploads/files/SHA256.safetensors             a checkpoint that somebody uploaded, as it came
uploads/upload-0123456789ab.json             uploaded checkpoints of one algorithm: what they are
algorithms/upload-0123456789ab/…             what was computed of them, as of any algorithm
comparisons/0123456789abcdef.json            a comparison of two algorithms
comparisons/0123456789abcdef.safetensors     its directions and projections
comparisons/0123456789abcdef-NAME.json       a test of a hypothesis about it
comparisons/0123456789abcdef.a0.json         name and note of a direction: its first of A beside B
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from engine.store.files import fingerprint

Split = Literal["train", "test"]
SPLITS: tuple[Split, Split] = ("train", "test")
MapKind = Literal["umap", "pca"]
MAP_KINDS: tuple[MapKind, MapKind] = ("umap", "pca")
FORMAT = 2
"""Version of the layout above. A study with a larger one was made by a newer Dataloupe.
1 had 256 thumbnails to a sheet."""
ROWS_PER_SHARD = 4096
TRAK = "trak"
"""The method that every study has. Other methods are found in the folder `methods`."""
DATAMODEL = "datamodel"
HYBRID = "hybrid"
OWN_METHODS = (TRAK, DATAMODEL, HYBRID)
"""Names that scores made elsewhere cannot have."""


class Layout:
    """Where a study keeps what.

    Attributes:
        root: The study's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def spec_file(self) -> Path:
        return self.root / "study.toml"

    @property
    def format_file(self) -> Path:
        return self.root / "store.json"

    @property
    def dataset_file(self) -> Path:
        return self.root / "data" / "dataset.json"

    @property
    def data_begun_file(self) -> Path:
        return self.root / "data" / "begun.json"

    def is_of_people(self, path: Path) -> bool:
        """Whether a person made what a file holds, so that no build can make it again."""
        folder = path.relative_to(self.root).parts[0]
        note = folder == "comparisons" and "." in path.stem
        return note or folder in ("slices", "sets", "triage", "uploads")

    def slice_file(self, name: str) -> Path:
        return self.root / "slices" / f"{fingerprint('slice', name)}.json"

    def slice_files(self) -> list[Path]:
        """The files of all saved slices."""
        return sorted((self.root / "slices").glob("[!.]*.json"))

    @property
    def jobs_folder(self) -> Path:
        return self.root / "jobs"

    @property
    def jobs_file(self) -> Path:
        return self.jobs_folder / "jobs.sqlite"

    def job_log_file(self, number: int) -> Path:
        return self.jobs_folder / f"{number:05d}.log"

    @property
    def runner_log_file(self) -> Path:
        return self.jobs_folder / "runner.log"

    @property
    def runner_lock_file(self) -> Path:
        return self.jobs_folder / "runner.lock"

    def removal_set_file(self, key: str) -> Path:
        return self.root / "sets" / f"{key}.json"

    def removal_set_files(self) -> list[Path]:
        """The files of all removal sets, written last first."""
        files = (self.root / "sets").glob("????????????????.json")
        return sorted(files, key=lambda path: (-path.stat().st_mtime_ns, path.name))

    def table_file(self, split: Split, shard: int) -> Path:
        return self.root / "data" / split / f"{shard:05d}.parquet"

    def arrays_file(self, split: Split, shard: int) -> Path:
        return self.root / "data" / split / f"{shard:05d}.safetensors"

    def sprite_file(self, split: Split, sheet: int) -> Path:
        return self.root / "data" / split / f"{sheet:05d}.webp"

    def algorithm_folder(self, algorithm: str) -> Path:
        return self.root / "algorithms" / algorithm

    def checkpoint_file(self, algorithm: str, checkpoint: int) -> Path:
        return self.algorithm_folder(algorithm) / "checkpoints" / f"{checkpoint:03d}.safetensors"

    def outputs_file(self, algorithm: str, checkpoint: int, split: Split) -> Path:
        folder = self.algorithm_folder(algorithm) / "outputs"
        return folder / f"{checkpoint:03d}-{split}.safetensors"

    def predictions_file(self, algorithm: str, split: Split) -> Path:
        return self.algorithm_folder(algorithm) / "predictions" / f"{split}.parquet"

    def stage_folders(self, stage: str, algorithm: str) -> list[Path]:
        """The folders that hold what a stage of the build makes, and nothing else."""
        folder = self.algorithm_folder(algorithm)
        return {
            "data": [self.root / "data"],
            "checkpoints": [folder / "checkpoints", folder / "outputs"],
            "predictions": [folder / "predictions"],
            "neighbours": [self.neighbours_folder(algorithm)],
            "trak": [self.trak_folder(algorithm)],
            "live": [self.live_folder(algorithm)],
            "search": [folder / "search"],
            "bank": [self.bank_folder(algorithm)],
            "tuning": [self.tuning_file(algorithm).parent],
            "datamodels": [
                of(algorithm, method)
                for method in (DATAMODEL, HYBRID)
                for of in (self.method_folder, self.search_folder)
            ],
            "quality": [self.quality_folder(algorithm)],
            "map": [folder / "maps"],
        }[stage]

    def neighbours_folder(self, algorithm: str) -> Path:
        return self.algorithm_folder(algorithm) / "neighbours"

    def neighbours_index_file(self, algorithm: str) -> Path:
        return self.neighbours_folder(algorithm) / "index.safetensors"

    def neighbours_file(self, algorithm: str, split: Split, shard: int) -> Path:
        return self.neighbours_folder(algorithm) / f"{split}-{shard:05d}.safetensors"

    def similarity_file(self, algorithm: str) -> Path:
        return self.neighbours_folder(algorithm) / "similarity.json"

    def trak_folder(self, algorithm: str) -> Path:
        return self.algorithm_folder(algorithm) / "trak"

    def road_file(self, algorithm: str) -> Path:
        return self.trak_folder(algorithm) / "road.json"

    def dual_file(self, algorithm: str, checkpoint: int) -> Path:
        return self.trak_folder(algorithm) / "dual" / f"{checkpoint:03d}.safetensors"

    def features_file(self, algorithm: str, checkpoint: int, shard: int) -> Path:
        folder = self.trak_folder(algorithm) / "features" / f"{checkpoint:03d}"
        return folder / f"{shard:05d}.safetensors"

    def factors_file(self, algorithm: str, checkpoint: int) -> Path:
        return self.trak_folder(algorithm) / "factors" / f"{checkpoint:03d}.safetensors"

    def scores_file(self, algorithm: str, shard: int) -> Path:
        return self.trak_folder(algorithm) / "scores" / f"{shard:05d}.safetensors"

    def weighting_file(self, algorithm: str) -> Path:
        return self.trak_folder(algorithm) / "weighting.safetensors"

    def live_folder(self, algorithm: str) -> Path:
        return self.algorithm_folder(algorithm) / "live"

    def live_solver_file(self, algorithm: str, checkpoint: int) -> Path:
        return self.live_folder(algorithm) / f"{checkpoint:03d}" / "solver.safetensors"

    def live_traces_file(self, algorithm: str, checkpoint: int, shard: int) -> Path:
        return self.live_folder(algorithm) / f"{checkpoint:03d}" / f"{shard:05d}.safetensors"

    def live_file(self, algorithm: str) -> Path:
        return self.live_folder(algorithm) / "live.json"

    def method_folder(self, algorithm: str, method: str) -> Path:
        return self.algorithm_folder(algorithm) / "methods" / method

    def method_file(self, algorithm: str, method: str) -> Path:
        return self.method_folder(algorithm, method) / "method.json"

    def method_scores_file(self, algorithm: str, method: str, shard: int) -> Path:
        folder = self.method_folder(algorithm, method) / "scores"
        return folder / f"{shard:05d}.safetensors"

    def tuning_file(self, algorithm: str) -> Path:
        return self.algorithm_folder(algorithm) / "tuning" / "tuning.json"

    def fit_file(self, algorithm: str, method: str, shard: int) -> Path:
        return self.method_folder(algorithm, method) / "fit" / f"{shard:05d}.safetensors"

    def training_datamodels_file(self, algorithm: str, shard: int) -> Path:
        return self.method_folder(algorithm, DATAMODEL) / "training" / f"{shard:05d}.safetensors"

    def intervals_file(self, algorithm: str, method: str, shard: int) -> Path:
        folder = self.method_folder(algorithm, method) / "intervals"
        return folder / f"{shard:05d}.safetensors"

    def search_folder(self, algorithm: str, method: str) -> Path:
        return self.algorithm_folder(algorithm) / "search" / method

    def top_test_file(self, algorithm: str, method: str) -> Path:
        return self.search_folder(algorithm, method) / "top" / "test.safetensors"

    def top_train_file(self, algorithm: str, method: str, shard: int) -> Path:
        return self.search_folder(algorithm, method) / "top" / f"train-{shard:05d}.safetensors"

    def totals_file(self, algorithm: str, method: str) -> Path:
        return self.search_folder(algorithm, method) / "totals.safetensors"

    def test_vectors_file(self, algorithm: str, method: str) -> Path:
        return self.search_folder(algorithm, method) / "vectors" / "test.safetensors"

    def train_vectors_file(self, algorithm: str, method: str, shard: int) -> Path:
        folder = self.search_folder(algorithm, method) / "vectors"
        return folder / f"train-{shard:05d}.safetensors"

    def index_file(self, algorithm: str, method: str) -> Path:
        return self.search_folder(algorithm, method) / "index.safetensors"

    def search_file(self, algorithm: str, method: str) -> Path:
        return self.search_folder(algorithm, method) / "search.json"

    def map_file(self, algorithm: str, method: str, kind: MapKind) -> Path:
        return self.algorithm_folder(algorithm) / "maps" / f"{method}-{kind}.safetensors"

    def quality_folder(self, algorithm: str) -> Path:
        return self.algorithm_folder(algorithm) / "quality"

    def quality_file(self, algorithm: str) -> Path:
        return self.quality_folder(algorithm) / "quality.json"

    def predicted_file(self, algorithm: str, method: str) -> Path:
        return self.quality_folder(algorithm) / f"{method}.safetensors"

    def bank_folder(self, algorithm: str) -> Path:
        return self.algorithm_folder(algorithm) / "bank"

    def run_file(self, algorithm: str, mask: int, seed: int) -> Path:
        return self.bank_folder(algorithm) / f"{mask:05d}-{seed}.safetensors"

    def bank_import_file(self, algorithm: str) -> Path:
        return self.algorithm_folder(algorithm) / "imported-bank" / "bank.json"

    def imported_runs_file(self, algorithm: str, fingerprint: str, shard: int) -> Path:
        name = f"{fingerprint}-{shard:05d}.safetensors"
        return self.bank_import_file(algorithm).parent / name

    def retrained_file(self, algorithm: str, made_from: str, seed: int) -> Path:
        folder = self.algorithm_folder(algorithm) / "retrained" / made_from
        return folder / f"{seed}.safetensors"

    def retrained_weights_file(self, algorithm: str, made_from: str, seed: int) -> Path:
        folder = self.algorithm_folder(algorithm) / "retrained" / made_from
        return folder / f"{seed}-weights.safetensors"

    def verification_file(self, algorithm: str, name: str) -> Path:
        return self.algorithm_folder(algorithm) / "verifications" / f"{name}.json"

    def verification_files(self, algorithm: str) -> list[Path]:
        """The files of all verifications."""
        return sorted((self.algorithm_folder(algorithm) / "verifications").glob("[!.]*.json"))

    def unlearning_folder(self, algorithm: str) -> Path:
        return self.algorithm_folder(algorithm) / "unlearning"

    def unlearned_file(self, algorithm: str, made_from: str, seed: int) -> Path:
        folder = self.unlearning_folder(algorithm) / "unlearned" / made_from
        return folder / f"{seed}.safetensors"

    def logit_changes_file(self, algorithm: str, made_from: str) -> Path:
        return self.unlearning_folder(algorithm) / "changes" / f"{made_from}.safetensors"

    def unlearning_search_file(self, algorithm: str, made_from: str) -> Path:
        return self.unlearning_folder(algorithm) / "searches" / f"{made_from}.json"

    def unlearning_audit_file(self, algorithm: str, name: str) -> Path:
        return self.unlearning_folder(algorithm) / "audits" / f"{name}.json"

    def unlearning_audit_files(self, algorithm: str) -> list[Path]:
        """The files of all audits."""
        return sorted((self.unlearning_folder(algorithm) / "audits").glob("[!.]*.json"))

    def unlearned_model_file(self, algorithm: str, name: str) -> Path:
        """A model that unlearned; its certificate has the suffix .json."""
        folder = self.unlearning_folder(algorithm) / "models"
        return folder / f"unlearned-{name}.safetensors"

    def triage_file(self, name: str) -> Path:
        return self.root / "triage" / f"{name}.json"

    def triage_files(self) -> list[Path]:
        """The files of all changes of tags and notes."""
        return sorted((self.root / "triage").glob("[!.]*.json"))

    @property
    def uploads_folder(self) -> Path:
        return self.root / "uploads"

    def upload_file(self, upload: str) -> Path:
        return self.uploads_folder / f"{upload}.json"

    def upload_files(self) -> list[Path]:
        """The files that say what each upload is."""
        return sorted(self.uploads_folder.glob("upload-*.json"))

    def uploaded_weights_file(self, sha256: str) -> Path:
        return self.uploads_folder / "files" / f"{sha256}.safetensors"

    def uploaded_weights_files(self) -> list[Path]:
        """All uploaded checkpoints."""
        return sorted((self.uploads_folder / "files").glob("[!.]*.safetensors"))

    def comparison_file(self, comparison: str) -> Path:
        return self.root / "comparisons" / f"{comparison}.json"

    def comparison_files(self) -> list[Path]:
        """The files that say what each comparison found."""
        return sorted((self.root / "comparisons").glob("????????????????.json"))

    def comparison_arrays_file(self, comparison: str) -> Path:
        return self.root / "comparisons" / f"{comparison}.safetensors"

    def direction_note_file(self, comparison: str, key: str, number: int) -> Path:
        return self.root / "comparisons" / f"{comparison}.{key}{number}.json"

    def direction_note_files(self, comparison: str) -> list[Path]:
        """The names and notes of a comparison's directions."""
        return sorted((self.root / "comparisons").glob(f"{comparison}.[ab]*.json"))

    def hypothesis_file(self, comparison: str, name: str) -> Path:
        return self.root / "comparisons" / f"{comparison}-{name}.json"

    def hypothesis_files(self, comparison: str) -> list[Path]:
        """The tests of hypotheses about a comparison."""
        return sorted((self.root / "comparisons").glob(f"{comparison}-*.json"))
