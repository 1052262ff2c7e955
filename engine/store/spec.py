"""The study's spec: pydantic models of study.toml.

Reading a spec never touches the data and never imports torch. Errors name the file, the key, what
was found and what is allowed.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from engine.store.errors import SpecError
from engine.store.spec_mistakes import Tables, explain_mistakes
from engine.store.spec_names import Name

Part = Literal["fit", "validation", "test"]
PARTS: tuple[Part, ...] = ("fit", "fit", "fit", "validation", "test")
"""The part that mask number k belongs to: the entry k mod 5. It stays when a bank grows."""
FEWEST_MASKS = 3 * len(PARTS)
"""Rank correlation, used for tuning and for the LDS, needs three runs."""
ImportedOutput = Literal["margin", "max-margin"]
"""`margin`: logit of the label − logsumexp of the others, ours; `max-margin`: − the largest other,
as in the datamodels paper."""

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(_Strict):
    """`[data]`: the source of the examples, and the names of its columns."""

    source: str
    """`fashion-mnist`, `emoji` or `country-facts` (embedded), a folder of pictures in class
    folders, a file of rows (Parquet, Arrow, Feather, CSV, TSV, JSON) or a folder of such files, a
    .npz file, a hub name (`owner/name`), or, on the command line only, an import string
    `python:module:function` that returns a `datasets.DatasetDict`. docs/study-toml.md says which
    files are a split."""
    config: str | None = None
    """The configuration of a hub dataset."""
    train: str = "train"
    """Name of the training split in the source, or the path of its file below the source."""
    test: str = "test"
    input: str = "auto"
    """Column of pictures, of names of picture files, or of texts; `auto` takes the only one, or the
    only one with a usual name such as `text`, `image` or `file`, and says so."""
    label: str | Annotated[list[str], Field(min_length=1)] = "auto"
    """Column of labels; `auto` takes the one of numbered classes, else one with a usual name such
    as `label`, `class`, `category`, `target` or `y`, for regression also `score`, `rating` and
    `value`, for multi-label tasks also `tags`. For these also a list of columns of 0 and 1, one for
    each class."""
    classes: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the places of lists of 0 and 1, for multi-label tasks; none: `0`, `1`, ..."""
    id: str | None = None
    """Column of unique ids, kept as text exactly as written; none: `train-17`, `test-3` by row."""
    train_limit: Annotated[int, Field(ge=1)] | None = None
    """Use only so many rows: a sample of each class in proportion, drawn with the study's seed."""
    test_limit: Annotated[int, Field(ge=1)] | None = None
    pictures: Literal["auto", "copy", "reference"] = "auto"
    """Kept as pixels, or as a place and a digest; `auto` copies up to 8 GiB of pixels."""

    @field_validator("label", "classes")
    @classmethod
    def _named_once(cls, names: Any) -> Any:
        twice = [name for name in names if names.count(name) > 1] if isinstance(names, list) else []
        if twice:
            raise ValueError(f"names {twice[0]!r} twice")
        return names

    @model_validator(mode="after")
    def _splits_differ(self) -> DataSpec:
        if self.train == self.test:
            raise ValueError(f"`train` and `test` both name {self.train!r}; name two splits")
        return self


class TaskSpec(BaseModel):
    """`[task]`: the task whose predictions are attributed. Keys other than `name` belong to it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "image-classification"

    def own_keys(self) -> dict[str, Any]:
        """The keys that the task's own options model checks."""
        return dict(self.model_extra or {})


def _listed(value: Any) -> Any:
    """One text as a list of it."""
    return [value] if isinstance(value, str) else value


class AlgorithmSpec(_Strict):
    """`[algorithms.NAME]`: a learning algorithm: architecture + initial weights + recipe."""

    architecture: str = "resnet-small"
    """A built-in (`resnet-small`, `resnet9`, `mlp`, ...), `timm:NAME`, `python:module:function`, or
    `transformers:FOLDER`, the folder or hub name of a model of transformers, or `diffusers:FOLDER`,
    the folder of a U-Net of diffusers."""
    architecture_options: dict[str, Any] = {}
    """Keyword arguments of the architecture, such as `widths = [256, 128]` for `mlp`."""
    initial_weights: str | None = None
    """A .safetensors file to start from, or a folder of transformers or diffusers; none: the
    weights in the folder of such an architecture, else a seeded random initialization."""
    reset: list[str] = []
    """Parts of the model, such as `fc`, that keep their seeded initialization instead of taking it
    from `initial_weights`."""
    weights: list[str] = []
    """The user's own trained checkpoints (.safetensors, or folders of transformers or diffusers).
    If given, nothing is trained."""
    checkpoints: Annotated[int, Field(ge=1, le=10_000)] = 5
    """How many models to train on all training examples."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 0.2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    decay: Literal["auto", "all", "weights"] = "auto"
    """What `weight_decay` applies to: `all` parameters, or `weights`, not biases and normalization
    layers. `auto` is `weights` for AdamW on models of transformers, else `all`."""
    gradient_clipping: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of a step's gradient; longer ones are scaled down. None: no limit."""
    micro_batch_size: Annotated[int, Field(ge=2)] | None = None
    """Examples of a batch whose activations are in memory at once; gradients stay those of the
    whole batch, at the price of another forward pass. None: all."""
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights (EMA) that models have, such as 0.999; 0: none."""
    train: Annotated[str, Field(pattern=r"^(all|head|last-[1-9][0-9]{0,3})$")] = "all"
    """What is trained, and attributed: `all`, the `head` after the blocks, or the `last-N` blocks
    and the head. The rest keeps its initial weights."""
    schedule: Literal["triangular", "cosine", "constant"] = "triangular"
    """Schedule of the learning rate, per step; it rises linearly for the share `warmup` of them."""
    warmup: Fraction = 0.2
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentations: list[str] = []
    """Names that the task knows, such as `flip`, `crop`, `cutout`."""
    without: dict[str, Annotated[list[str], Field(min_length=1), BeforeValidator(_listed)]] = {}
    """Column → values: training examples that hold one of them in every such column are not
    trained on, such as `{ kind = "false statement" }`."""


class TrakSpec(_Strict):
    """`[trak]`: how attributions are computed. DESIGN section 5.

    With a run bank, `auto` settings of damping, tempering and soft threshold are those with the
    best LDS on its validation runs; without one, defaults that did well on our workloads.
    """

    solver: Literal["auto", "dual-exact", "dual-wide", "primal"] = "auto"
    """`dual-*` solve with the n × n after-kernel; `primal` with proj_dim × proj_dim."""
    proj_dim: Annotated[int, Field(ge=8, le=262_144)] = 4096
    """Features per checkpoint in the primal."""
    storage: Literal["auto", "float32", "float16", "int8", "int4"] = "auto"
    """How the primal stores each of them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What a model's layers compute in where gradients are taken. Solves are in float32."""
    width: Annotated[int, Field(ge=64, le=1_048_576)] = 32_768
    """Features per checkpoint in `dual-wide`, and before sketching in the primal."""
    damping: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """λ relative to the mean diagonal of the Gram matrix. 0 is used only if written here."""
    tempering: Fraction | Literal["auto"] = "auto"
    """Power t of the out-to-loss gradient Q; 1 in the TRAK paper."""
    curvature: Literal["gauss-newton", "plain"] = "gauss-newton"
    """Weights of training examples in the Gram matrix: Q^t, or equal ones as in the TRAK paper."""
    soft_threshold: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """Scores are shrunk towards 0 by this many standard deviations of a test example's scores."""
    memory_gib: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """The most memory that attributing one checkpoint may take; `auto` is 4 GiB on every machine,
    so that the same spec gives the same scores everywhere."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 128

    @property
    def chosen(self) -> dict[str, Any]:
        """What scores depend on, for fingerprints. Keys that are younger than the studies of some
        people count only if they are set."""
        found = self.model_dump(exclude={"memory_gib", "batch_size"})
        if self.storage == "auto":
            del found["storage"]
        if self.precision == "float32":
            del found["precision"]
        return found

    @property
    def tunable(self) -> tuple[str, ...]:
        """Settings that are tuned on validation runs."""
        names = ("tempering", "damping", "soft_threshold")
        return tuple(name for name in names if getattr(self, name) == "auto")


class SearchSpec(_Strict):
    """`[search]`: the FAISS index over the attribution space."""

    index: Literal["auto", "flat", "ivf", "sq", "pq"] = "auto"
    rank: Annotated[int, Field(ge=1, le=8192)] = 512
    """Dimensions of the low-rank attribution space that is indexed."""
    top_k: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Number of influences of each sign stored per example."""
    map_epochs: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = "auto"
    """Epochs of a UMAP map's layout. `auto`: 500, or 200 for more than 10,000 points."""


class LiveSpec(_Strict):
    """`[live]`: what is kept so that new examples can be attributed quickly."""

    checkpoints: Annotated[int, Field(ge=0, le=10_000)] | Literal["auto"] = "auto"
    """Live scores are averaged over this many; 0: no live queries. `auto`: as many as a query can
    read within 1 GiB, but at least one, unless that alone is more than 8 GiB."""


class SubsetRunsSpec(_Strict):
    """`[subset_runs]`: models trained on random parts of the training set, each algorithm's run
    bank. DESIGN section 5."""

    masks: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Number of random subsets; 0: no bank. It can be raised later: finished runs are reused."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the training examples that each run is trained on."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    """Runs per mask; their outputs are averaged."""
    test_seeds: Annotated[int, Field(ge=1, le=1000)] = 2
    """Runs per mask of the test part, never fewer than `seeds`. Two or more give the noise ceiling:
    how much of the outcomes is the randomness of single runs."""
    removals: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Number of models trained without the strongest supporters of some test examples, to learn how
    large effects are. Each costs a training on all the data. None: as many as test masks."""
    logits: bool = False
    """Also keep every class's logits of every example."""
    weights: bool = False
    """Also keep the trained models."""
    training_targets: bool = False
    """Also fit a datamodel of every training example's own output."""

    def seeds_of(self, mask: int) -> int:
        """How many runs a mask has, by the part that it belongs to."""
        return self.runs_per_test_mask if PARTS[mask % len(PARTS)] == "test" else self.seeds

    @property
    def runs_per_test_mask(self) -> int:
        return max(self.seeds, self.test_seeds)

    @field_validator("masks")
    @classmethod
    def _each_part_has_a_mask(cls, masks: int) -> int:
        if 0 < masks < FEWEST_MASKS:
            raise ValueError(
                "of every five masks three are for fitting, one is for tuning and one for testing, "
                f"and each use needs three, so take at least {FEWEST_MASKS} (some hundred are "
                "useful), or 0 for no run bank"
            )
        return masks


class UploadsSpec(_Strict):
    """`[uploads]`: limits on models that people upload to compare. DESIGN section 8."""

    max_mib: Annotated[int, Field(ge=1, le=65_536)] = 512
    """Largest size of a file."""
    max_files: Annotated[int, Field(ge=1, le=1000)] = 32
    """Largest number of checkpoints of one upload."""
    quota_mib: Annotated[int, Field(ge=1)] = 4096
    """Limit on the size of all uploaded files together."""
    keep_days: Annotated[int, Field(ge=0)] = 0
    """Uploads are removed after this many days; 0: never."""
    memory_mib: Annotated[int, Field(ge=256)] = 4096
    """Memory limit of the process that tries an upload."""
    seconds: Annotated[int, Field(ge=1)] = 120
    """Time limit for trying an upload."""


class StudySpec(_Strict):
    """A whole study.toml."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSpec
    task: TaskSpec = TaskSpec()
    algorithms: Annotated[dict[Name, AlgorithmSpec], Field(min_length=1)]
    trak: TrakSpec = TrakSpec()
    search: SearchSpec = SearchSpec()
    subset_runs: SubsetRunsSpec = SubsetRunsSpec()
    live: LiveSpec = LiveSpec()
    uploads: UploadsSpec = UploadsSpec()

    @field_validator("algorithms")
    @classmethod
    def _names_differ_in_more_than_case(
        cls, algorithms: dict[str, AlgorithmSpec]
    ) -> dict[str, AlgorithmSpec]:
        seen: dict[str, str] = {}
        for name in algorithms:
            other = seen.setdefault(name.casefold(), name)
            if other != name:
                raise ValueError(
                    f"{other} and {name} differ only in upper and lower case, and some disks would "
                    "keep them in one folder; rename one"
                )
        return algorithms

    @model_validator(mode="after")
    def _weights_and_recipe_exclude_each_other(self) -> StudySpec:
        for name, algorithm in self.algorithms.items():
            if algorithm.weights and algorithm.initial_weights:
                raise ValueError(
                    f"algorithms.{name}: `weights` (already trained) and `initial_weights` "
                    "(a start for training) exclude each other"
                )
            own = algorithm.architecture
            for library in ("transformers:", "diffusers:"):
                own = own.removeprefix(library)
            if own in algorithm.weights and "epochs" in algorithm.model_fields_set:
                raise ValueError(
                    f"algorithms.{name}: its models cannot be trained again from {own!r}, which is "
                    "one of the trained `weights`: name the folder that they were fine-tuned from "
                    "as `architecture`, or remove `epochs`"
                )
            starts = algorithm.initial_weights or own != algorithm.architecture
            if algorithm.reset and not starts:
                raise ValueError(
                    f"algorithms.{name}: `reset` names parts of the model that do not start from "
                    "`initial_weights`, but there are none"
                )
        return self


def load_spec(path: Path) -> StudySpec:
    """Read and check a study.toml.

    Raises:
        SpecError: One line per mistake, with file, key and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(f"{path} does not exist. `dataloupe init STUDY` writes one.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read as UTF-8 text: {error}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path} is not valid TOML: {error}") from error
    return parse_spec(content, str(path), text)


def validate_options(options: type[BaseModel], task: TaskSpec, where: Path) -> BaseModel:
    """Check the task's own keys of `[task]` with the task's options model.

    Raises:
        SpecError: One line per wrong key.
    """
    try:
        return options.model_validate(task.own_keys())
    except ValidationError as error:
        text = where.read_text(encoding="utf-8")
        raise SpecError(
            explain_mistakes(error, str(where), text, ["task"], options, _TABLES)
        ) from error


def parse_spec(content: dict[str, Any], where: str, text: str = "") -> StudySpec:
    """Check a parsed study.toml. `text` is its source, to name the line of each error."""
    try:
        return StudySpec.model_validate(content)
    except ValidationError as error:
        raise SpecError(explain_mistakes(error, where, text, [], StudySpec, _TABLES)) from error


_TABLES: Tables = {
    "data": DataSpec,
    "algorithms": AlgorithmSpec,
    "trak": TrakSpec,
    "search": SearchSpec,
    "subset_runs": SubsetRunsSpec,
    "live": LiveSpec,
    "uploads": UploadsSpec,
}
