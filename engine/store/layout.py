"""Names of the files of a study. No other module knows them.

study.toml                                   what to compute (written by people)
store.json                                   format of this folder, and study.toml as last built
slices/0123456789abcdef.json                 a saved slice: its name and its filters
sets/0123456789abcdef.json                   a removal set: training rows, how they were chosen
data/dataset.json                            what the dataset is, and its fingerprint
data/begun.json                              what the source holds, until all of it is read
data/{split}/00000.safetensors               what models are fed, in row shards
data/{split}/00000.parquet                   id, label, columns to show and filter by
data/{split}/00000.webp                      thumbnails, 64 to a sprite sheet; or, by reference:
data/{split}/00000.pictures.parquet          where each picture lies, its digest, its header
generated/train.parquet, test.parquet        pictures of a study whose models made the test split
generated/weights/000.safetensors            the models that made them
generated/trajectories.safetensors           how each came about
jobs/jobs.sqlite                             the queue of long work (engine.running.jobs)
jobs/00001.log                               what a job has printed
jobs/runner.log, jobs/runner.lock            of the process that runs jobs
audit/audit.jsonl, audit/audit.1.jsonl …     who changed what on the pages, newest file first
algorithms/NAME/checkpoints/000.safetensors  trained weights
algorithms/NAME/checkpoints/architecture.json  config of a model of transformers
algorithms/NAME/contexts/000.safetensors     what its outputs need beside the example, if anything
algorithms/NAME/outputs/000-{split}.safetensors    logits, model outputs, out-to-loss
algorithms/NAME/predictions/{split}.parquet  predictions averaged over checkpoints
algorithms/NAME/neighbours/index.safetensors          a serialised FAISS index of embeddings
algorithms/NAME/neighbours/{split}-00000.safetensors  nearest training examples, in row shards
algorithms/NAME/neighbours/similarity.json   what likeness is the mean over, measured recall
algorithms/NAME/tuning/tuning.json           settings of TRAK that validation runs decided
algorithms/NAME/trak/solver.json               how attributions are computed, and why so
algorithms/NAME/trak/dual/000.safetensors    one checkpoint's scores (dual solvers)
algorithms/NAME/trak/features/000/00000.safetensors   train features in row shards (primal)
algorithms/NAME/trak/factors/000.safetensors solved test features (primal)
algorithms/NAME/trak/scores/00000.safetensors         scores of a block of test rows (dual)
algorithms/NAME/trak/weighting.safetensors   mean out-to-loss, soft threshold
algorithms/NAME/live/000/inverse.safetensors  solves for examples from outside
algorithms/NAME/live/000/00000.safetensors   features of training examples in row shards (dual)
algorithms/NAME/live/live.json               how many checkpoints are kept so, and why
algorithms/NAME/methods/METHOD/method.json   another method's scores: what they are
algorithms/NAME/methods/METHOD/scores/00000.safetensors   a block of its test rows
algorithms/NAME/methods/METHOD/fit/00000.safetensors  biases and how each fit came out
algorithms/NAME/methods/METHOD/intervals/00000.safetensors  its predictions of test runs
algorithms/NAME/methods/METHOD/validation.safetensors  cross-fitted ones of validation runs
algorithms/NAME/methods/datamodel/training/00000.safetensors  datamodels of training examples
algorithms/NAME/search/METHOD/top/test.safetensors    top-k of both signs for every test example
algorithms/NAME/search/METHOD/top/train-00000.safetensors   the reverse, in row shards
algorithms/NAME/search/METHOD/top/part-00000.safetensors    while ranking: a part of both sides
algorithms/NAME/search/METHOD/totals.safetensors      sums of scores of both signs, both sides
algorithms/NAME/search/METHOD/vectors/       the attribution space: test.safetensors, train-…
algorithms/NAME/search/METHOD/index.safetensors       a FAISS index of the train vectors
algorithms/NAME/search/METHOD/search.json    which kind of index, and its measured recall
algorithms/NAME/maps/METHOD-umap.safetensors    where every example lies on a map
algorithms/NAME/bank/00017-0.safetensors     subset run: mask 17, seed 0, and its outputs
algorithms/NAME/removals/00003.safetensors   a model without some examples: its outputs
algorithms/NAME/imported-bank/bank.json      imported subset runs: their description
algorithms/NAME/imported-bank/HASH-00000.safetensors   masks and outputs of a part of them
algorithms/NAME/quality/quality.json         how far each method's scores can be trusted
algorithms/NAME/quality/METHOD.safetensors   predicted and actual outputs of the test runs
algorithms/NAME/retrained/HASH/0.safetensors outputs of one model without a removal set (HASH)
algorithms/NAME/retrained/HASH/0-weights.safetensors   its weights, if trained with all data
algorithms/NAME/replays/HASH/0-HASH.safetensors   exact scores of one model for one query
algorithms/NAME/verifications/0123456789abcdef.json   a removal, predicted and retrained
algorithms/NAME/unlearning/unlearned/HASH/0.safetensors    logits of a model that unlearned it
algorithms/NAME/unlearning/changes/0123456789abcdef.safetensors   what should change in logits
algorithms/NAME/unlearning/searches/0123456789abcdef.json  hyper-parameters that did best
algorithms/NAME/unlearning/audits/0123456789abcdef.json    how near the oracles methods came
algorithms/NAME/unlearning/models/unlearned-HASH.safetensors  a model to take away, and
algorithms/NAME/unlearning/models/unlearned-HASH.json      its certificate
triage/0123456789abcdef.json                 one change of a prediction's tags and note
uploads/files/SHA256.safetensors             an uploaded checkpoint, unchanged
uploads/upload-0123456789ab.json             uploaded checkpoints of one algorithm: what they are
algorithms/upload-0123456789ab/…             what was computed of them, as of any algorithm
comparisons/0123456789abcdef.json            a comparison of two algorithms
comparisons/0123456789abcdef.safetensors     its directions and projections
comparisons/0123456789abcdef-NAME.json       a test of a hypothesis about it
comparisons/0123456789abcdef.a0.json         name and note of a direction: the first of A against B
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from engine.store.cache import list_names, stamp_of
from engine.store.files import fingerprint_of
from engine.store.walk import files_below, paths_in

Split = Literal["train", "test"]
SPLITS: tuple[Split, Split] = ("train", "test")
MapKind = Literal["umap", "pca"]
MAP_KINDS: tuple[MapKind, MapKind] = ("umap", "pca")
FORMAT = 5
"""Version of the layout above. A study with a larger one was made by a newer Dataloupe.
1 had 256 thumbnails to a sheet; 2 had other names of files and of keys; 3 had checksums that did
not cover headers."""
ROWS_PER_SHARD = 4096
TRAK = "trak"
"""The method that every study has. Other methods are found in the folder `methods`."""
DATAMODEL = "datamodel"
HYBRID = "hybrid"
OWN_METHODS = (TRAK, DATAMODEL, HYBRID)
"""Names that imported scores cannot have."""


def spec_file(root: Path) -> Path:
    return root / "study.toml"


def generated_folder(root: Path) -> Path:
    """Pictures of both splits, where models made a part of the test split."""
    return root / "generated"


def generated_weights_file(root: Path, checkpoint: int) -> Path:
    return generated_folder(root) / "weights" / f"{checkpoint:03d}.safetensors"


def trajectories_file(root: Path) -> Path:
    return generated_folder(root) / "trajectories.safetensors"


def format_file(root: Path) -> Path:
    return root / "store.json"


def dataset_file(root: Path) -> Path:
    return root / "data" / "dataset.json"


def data_begun_file(root: Path) -> Path:
    return root / "data" / "begun.json"


def is_of_people(root: Path, path: Path) -> bool:
    """Whether a person made a file's content, so that no build can make it again."""
    folder = path.relative_to(root).parts[0]
    note = folder == "comparisons" and "." in path.stem
    return note or folder in ("jobs", "slices", "sets", "triage", "uploads")


def stored_files(root: Path) -> list[Path]:
    """Every file of the layout above that is there, but for study.toml.

    A person may keep other files in the folder, such as the source of the data: they are not ours.
    """
    found = [format_file(root)]
    for folder in ("algorithms", "comparisons", "jobs", "sets", "slices", "triage", "uploads"):
        found += files_below(root / folder)
    data = root / "data"
    found += paths_in(data, "*.json")
    for split in SPLITS:
        found += paths_in(data / split, "[0-9][0-9][0-9][0-9][0-9].*")
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def slice_file(root: Path, name: str) -> Path:
    return root / "slices" / f"{fingerprint_of('slice', name)}.json"


def slice_files(root: Path) -> list[Path]:
    """The files of all saved slices."""
    return paths_in(root / "slices", "[!.]*.json")


def jobs_folder(root: Path) -> Path:
    return root / "jobs"


def jobs_file(root: Path) -> Path:
    return jobs_folder(root) / "jobs.sqlite"


def job_log_file(root: Path, number: int) -> Path:
    return jobs_folder(root) / f"{number:05d}.log"


def runner_log_file(root: Path) -> Path:
    return jobs_folder(root) / "runner.log"


def runner_lock_file(root: Path) -> Path:
    return jobs_folder(root) / "runner.lock"


def audit_log_file(root: Path, number: int) -> Path:
    return root / "audit" / (f"audit.{number}.jsonl" if number else "audit.jsonl")


def removal_set_file(root: Path, key: str) -> Path:
    return root / "sets" / f"{key}.json"


def removal_set_files(root: Path) -> list[Path]:
    """The files of all removal sets, written last first."""
    stamps = [(path, stamp_of(path)) for path in paths_in(root / "sets", "????????????????.json")]
    there = [(-stamp[0], path.name, path) for path, stamp in stamps if stamp is not None]
    return [path for _, _, path in sorted(there)]


def table_file(root: Path, split: Split, shard: int) -> Path:
    return root / "data" / split / f"{shard:05d}.parquet"


def arrays_file(root: Path, split: Split, shard: int) -> Path:
    return root / "data" / split / f"{shard:05d}.safetensors"


def references_file(root: Path, split: Split, shard: int) -> Path:
    return root / "data" / split / f"{shard:05d}.pictures.parquet"


def sprite_file(root: Path, split: Split, sheet: int) -> Path:
    return root / "data" / split / f"{sheet:05d}.webp"


def algorithm_folder(root: Path, algorithm: str) -> Path:
    return root / "algorithms" / algorithm


def checkpoint_file(root: Path, algorithm: str, checkpoint: int) -> Path:
    return algorithm_folder(root, algorithm) / "checkpoints" / f"{checkpoint:03d}.safetensors"


def architecture_file(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "checkpoints" / "architecture.json"


def architecture_files(root: Path) -> list[Path]:
    """The files of all algorithms that have one."""
    found = [one / "checkpoints" / "architecture.json" for one in paths_in(root / "algorithms")]
    return [path for path in found if path.exists()]


def context_file(root: Path, algorithm: str, checkpoint: int) -> Path:
    return algorithm_folder(root, algorithm) / "contexts" / f"{checkpoint:03d}.safetensors"


def outputs_file(root: Path, algorithm: str, checkpoint: int, split: Split) -> Path:
    folder = algorithm_folder(root, algorithm) / "outputs"
    return folder / f"{checkpoint:03d}-{split}.safetensors"


def predictions_file(root: Path, algorithm: str, split: Split) -> Path:
    return algorithm_folder(root, algorithm) / "predictions" / f"{split}.parquet"


def stage_folders(root: Path, stage: str, algorithm: str) -> list[Path]:
    """The folders that hold the results of a stage of the build, and nothing else."""
    folder = algorithm_folder(root, algorithm)
    return {
        "data": [root / "data"],
        "checkpoints": [folder / "checkpoints", folder / "outputs"],
        "predictions": [folder / "predictions"],
        "neighbours": [neighbours_folder(root, algorithm)],
        "trak": [trak_folder(root, algorithm)],
        "live": [live_folder(root, algorithm)],
        "search": [searches_folder(root, algorithm)],
        "bank": [bank_folder(root, algorithm)],
        "tuning": [tuning_file(root, algorithm).parent],
        "datamodels": [
            of(root, algorithm, method)
            for method in (DATAMODEL, HYBRID)
            for of in (method_folder, search_folder)
        ],
        "removals": [removals_folder(root, algorithm)],
        "quality": [quality_folder(root, algorithm)],
        "map": [folder / "maps"],
    }[stage]


def neighbours_folder(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "neighbours"


def neighbours_index_file(root: Path, algorithm: str) -> Path:
    return neighbours_folder(root, algorithm) / "index.safetensors"


def neighbours_file(root: Path, algorithm: str, split: Split, shard: int) -> Path:
    return neighbours_folder(root, algorithm) / f"{split}-{shard:05d}.safetensors"


def similarity_file(root: Path, algorithm: str) -> Path:
    return neighbours_folder(root, algorithm) / "similarity.json"


def trak_folder(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "trak"


def solver_file(root: Path, algorithm: str) -> Path:
    return trak_folder(root, algorithm) / "solver.json"


def dual_file(root: Path, algorithm: str, checkpoint: int) -> Path:
    return trak_folder(root, algorithm) / "dual" / f"{checkpoint:03d}.safetensors"


def features_file(
    root: Path, algorithm: str, checkpoint: int, shard: int, of: str = "features"
) -> Path:
    return trak_folder(root, algorithm) / of / f"{checkpoint:03d}" / f"{shard:05d}.safetensors"


def factors_file(root: Path, algorithm: str, checkpoint: int) -> Path:
    return trak_folder(root, algorithm) / "factors" / f"{checkpoint:03d}.safetensors"


def scores_file(root: Path, algorithm: str, shard: int) -> Path:
    return trak_folder(root, algorithm) / "scores" / f"{shard:05d}.safetensors"


def weighting_file(root: Path, algorithm: str) -> Path:
    return trak_folder(root, algorithm) / "weighting.safetensors"


def live_folder(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "live"


def live_inverse_file(root: Path, algorithm: str, checkpoint: int) -> Path:
    return live_folder(root, algorithm) / f"{checkpoint:03d}" / "inverse.safetensors"


def live_traces_file(root: Path, algorithm: str, checkpoint: int, shard: int) -> Path:
    return live_folder(root, algorithm) / f"{checkpoint:03d}" / f"{shard:05d}.safetensors"


def live_file(root: Path, algorithm: str) -> Path:
    return live_folder(root, algorithm) / "live.json"


def methods_folder(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "methods"


def method_folder(root: Path, algorithm: str, method: str) -> Path:
    return methods_folder(root, algorithm) / method


def method_file(root: Path, algorithm: str, method: str) -> Path:
    return method_folder(root, algorithm, method) / "method.json"


def method_scores_file(root: Path, algorithm: str, method: str, shard: int) -> Path:
    folder = method_folder(root, algorithm, method) / "scores"
    return folder / f"{shard:05d}.safetensors"


def tuning_file(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "tuning" / "tuning.json"


def fit_file(root: Path, algorithm: str, method: str, shard: int) -> Path:
    return method_folder(root, algorithm, method) / "fit" / f"{shard:05d}.safetensors"


def training_datamodels_file(root: Path, algorithm: str, shard: int) -> Path:
    return method_folder(root, algorithm, DATAMODEL) / "training" / f"{shard:05d}.safetensors"


def validation_file(root: Path, algorithm: str, method: str) -> Path:
    return method_folder(root, algorithm, method) / "validation.safetensors"


def intervals_file(root: Path, algorithm: str, method: str, shard: int) -> Path:
    folder = method_folder(root, algorithm, method) / "intervals"
    return folder / f"{shard:05d}.safetensors"


def searches_folder(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "search"


def search_folder(root: Path, algorithm: str, method: str) -> Path:
    return searches_folder(root, algorithm) / method


def top_test_file(root: Path, algorithm: str, method: str) -> Path:
    return search_folder(root, algorithm, method) / "top" / "test.safetensors"


def top_train_file(root: Path, algorithm: str, method: str, shard: int) -> Path:
    return search_folder(root, algorithm, method) / "top" / f"train-{shard:05d}.safetensors"


def top_part_file(root: Path, algorithm: str, method: str, part: int) -> Path:
    return search_folder(root, algorithm, method) / "top" / f"part-{part:05d}.safetensors"


def totals_file(root: Path, algorithm: str, method: str) -> Path:
    return search_folder(root, algorithm, method) / "totals.safetensors"


def test_vectors_file(root: Path, algorithm: str, method: str) -> Path:
    return search_folder(root, algorithm, method) / "vectors" / "test.safetensors"


def train_vectors_file(root: Path, algorithm: str, method: str, shard: int) -> Path:
    folder = search_folder(root, algorithm, method) / "vectors"
    return folder / f"train-{shard:05d}.safetensors"


def index_file(root: Path, algorithm: str, method: str) -> Path:
    return search_folder(root, algorithm, method) / "index.safetensors"


def search_file(root: Path, algorithm: str, method: str) -> Path:
    return search_folder(root, algorithm, method) / "search.json"


def map_file(root: Path, algorithm: str, method: str, kind: MapKind) -> Path:
    return algorithm_folder(root, algorithm) / "maps" / f"{method}-{kind}.safetensors"


def quality_folder(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "quality"


def quality_file(root: Path, algorithm: str) -> Path:
    return quality_folder(root, algorithm) / "quality.json"


def predicted_file(root: Path, algorithm: str, method: str) -> Path:
    return quality_folder(root, algorithm) / f"{method}.safetensors"


def bank_folder(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "bank"


def run_file(root: Path, algorithm: str, mask: int, seed: int) -> Path:
    return bank_folder(root, algorithm) / f"{mask:05d}-{seed}.safetensors"


def removals_folder(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "removals"


def removal_run_file(root: Path, algorithm: str, number: int) -> Path:
    return removals_folder(root, algorithm) / f"{number:05d}.safetensors"


def bank_import_file(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "imported-bank" / "bank.json"


def imported_runs_file(root: Path, algorithm: str, fingerprint: str, shard: int) -> Path:
    name = f"{fingerprint}-{shard:05d}.safetensors"
    return bank_import_file(root, algorithm).parent / name


def retrained_file(root: Path, algorithm: str, fingerprint: str, seed: int) -> Path:
    folder = algorithm_folder(root, algorithm) / "retrained" / fingerprint
    return folder / f"{seed}.safetensors"


def retrained_weights_file(root: Path, algorithm: str, fingerprint: str, seed: int) -> Path:
    folder = algorithm_folder(root, algorithm) / "retrained" / fingerprint
    return folder / f"{seed}-weights.safetensors"


def replay_file(root: Path, algorithm: str, fingerprint: str, name: str) -> Path:
    folder = algorithm_folder(root, algorithm) / "replays" / fingerprint
    return folder / f"{name}.safetensors"


def replay_files(root: Path, algorithm: str, fingerprint: str) -> list[Path]:
    """The files of exact scores: one a model and query."""
    folder = algorithm_folder(root, algorithm) / "replays" / fingerprint
    return paths_in(folder, "[0-9]*-*.safetensors")


def has_replays(root: Path, algorithm: str) -> bool:
    """Whether anything was replayed, whatever its data and recipe."""
    return (algorithm_folder(root, algorithm) / "replays").is_dir()


def verification_file(root: Path, algorithm: str, name: str) -> Path:
    return algorithm_folder(root, algorithm) / "verifications" / f"{name}.json"


def verification_files(root: Path, algorithm: str) -> list[Path]:
    """The files of all verifications."""
    return paths_in(algorithm_folder(root, algorithm) / "verifications", "[!.]*.json")


def unlearning_folder(root: Path, algorithm: str) -> Path:
    return algorithm_folder(root, algorithm) / "unlearning"


def unlearned_file(root: Path, algorithm: str, fingerprint: str, seed: int) -> Path:
    folder = unlearning_folder(root, algorithm) / "unlearned" / fingerprint
    return folder / f"{seed}.safetensors"


def logit_changes_file(root: Path, algorithm: str, fingerprint: str) -> Path:
    return unlearning_folder(root, algorithm) / "changes" / f"{fingerprint}.safetensors"


def unlearning_search_file(root: Path, algorithm: str, fingerprint: str) -> Path:
    return unlearning_folder(root, algorithm) / "searches" / f"{fingerprint}.json"


def unlearning_audit_file(root: Path, algorithm: str, name: str) -> Path:
    return unlearning_folder(root, algorithm) / "audits" / f"{name}.json"


def unlearning_audit_files(root: Path, algorithm: str) -> list[Path]:
    """The files of all audits."""
    return paths_in(unlearning_folder(root, algorithm) / "audits", "[!.]*.json")


def unlearned_model_file(root: Path, algorithm: str, name: str) -> Path:
    """An unlearned model; its certificate has the suffix .json."""
    folder = unlearning_folder(root, algorithm) / "models"
    return folder / f"unlearned-{name}.safetensors"


def triage_file(root: Path, name: str) -> Path:
    return root / "triage" / f"{name}.json"


def triage_files(root: Path) -> list[Path]:
    """The files of all changes of tags and notes."""
    return paths_in(root / "triage", "[!.]*.json")


def uploads_folder(root: Path) -> Path:
    return root / "uploads"


def upload_file(root: Path, upload: str) -> Path:
    return uploads_folder(root) / f"{upload}.json"


def upload_files(root: Path) -> list[Path]:
    """The descriptions of all uploads."""
    folder = uploads_folder(root)
    return [folder / name for name in list_names(folder) if fnmatch(name, "upload-*.json")]


def uploaded_weights_file(root: Path, sha256: str) -> Path:
    return uploads_folder(root) / "files" / f"{sha256}.safetensors"


def uploaded_weights_files(root: Path) -> list[Path]:
    """All uploaded checkpoints."""
    return paths_in(uploads_folder(root) / "files", "[!.]*.safetensors")


def comparison_file(root: Path, comparison: str) -> Path:
    return root / "comparisons" / f"{comparison}.json"


def comparison_files(root: Path) -> list[Path]:
    """The results of all comparisons."""
    return paths_in(root / "comparisons", "????????????????.json")


def comparison_arrays_file(root: Path, comparison: str) -> Path:
    return root / "comparisons" / f"{comparison}.safetensors"


def direction_note_file(root: Path, comparison: str, key: str, number: int) -> Path:
    return root / "comparisons" / f"{comparison}.{key}{number}.json"


def direction_note_files(root: Path, comparison: str) -> list[Path]:
    """The names and notes of a comparison's directions."""
    return paths_in(root / "comparisons", f"{comparison}.[ab]*.json")


def hypothesis_file(root: Path, comparison: str, name: str) -> Path:
    return root / "comparisons" / f"{comparison}-{name}.json"


def hypothesis_files(root: Path, comparison: str) -> list[Path]:
    """The tests of hypotheses about a comparison."""
    return paths_in(root / "comparisons", f"{comparison}-*.json")
