"""The public `Study`: everything that a notebook calls, in one class.

    from engine import Study

    study = Study.open("my-study")
    study.build()
    study.explain("test-17", k=5).supporting

A `Study` is a `StudyReader`, so every function of the rooms below takes it. What computes is
imported when it is
called: opening a study imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from engine.attribution.datamodels.run_bank import BankImport, RunBank
from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.attribution.evaluation.quality import Quality
from engine.store.layout import Split
from engine.store.records import Badge, ExampleOutput, Explanation, Progress
from engine.study.counterfactuals import predict_counterfactual
from engine.study.creation import create_study
from engine.study.example_outputs import outputs_of
from engine.study.explanations import explain
from engine.study.measured_quality import read_badge
from engine.study.methods import read_quality
from engine.study.models import read_predictions
from engine.study.names import resolve_algorithm, resolve_row
from engine.study.neighbours import find_neighbours
from engine.study.progress import stage_progress
from engine.study.reader import StudyReader
from engine.study.run_banks import read_bank
from engine.study.score_matrices import score_rows
from engine.study.trust import trust_study
from engine.study.uploads import Upload

if TYPE_CHECKING:
    import pandas as pd

    from engine.applications.curation.label_suspicion import LabelSuspicion
    from engine.applications.verification import Verification
    from engine.exchange.importing.methods import Imported


class Study(StudyReader):
    """A study: the folder with all that is computed for one dataset.

    Where a function takes an `algorithm` or a `method`, None stands for the study's first
    algorithm and for its preferred method.
    """

    @classmethod
    def open(cls, root: str | Path, trust: bool = False) -> Self:
        """Open a study's folder.

        Args:
            trust: Let the Python code that the study names run on this machine from now on, as
                `dataloupe trust` does.

        Raises:
            SpecError: There is no study.toml, or it is invalid.
            StoreError: The study was made by a newer or older Dataloupe.
        """
        study = super().open(root)
        if trust:
            trust_study(study)
        return study

    @classmethod
    def create(cls, root: str | Path, spec_text: str, trust: bool = False) -> Self:
        """Make a folder with this study.toml. An existing study is never overwritten.

        Args:
            trust: As in `open`.
        """
        create_study(root, spec_text)
        return cls.open(root, trust)

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
        `engine.exchange.importing.methods.import_scores`."""
        from engine.exchange.importing.methods import import_scores

        return import_scores(self, kind, path, **options)

    def import_bank(self, folder: str | Path, **options: Any) -> BankImport:
        """Bring in a run bank made elsewhere. See `engine.exchange.importing.banks.import_bank`."""
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

    def verifications(self, algorithm: str | None = None) -> list[Verification]:
        """Every removal that was verified by retraining, oldest first."""
        from engine.applications.verification import read_verifications

        return read_verifications(self, resolve_algorithm(self, algorithm))

    def verify(self, removed: Iterable[int | str], **options: Any) -> Verification:
        """Retrain without some training examples. See `engine.applications.verification.verify`."""
        from engine.applications.verification import verify

        return verify(self, removed, **options)

    def explain(
        self,
        test: int | str,
        k: int = 10,
        algorithm: str | None = None,
        method: str | None = None,
        output: str | None = None,
    ) -> Explanation:
        """Explain one test prediction by its k strongest training examples of each sign.

        Args:
            output: What the scores answer: `margin`, `predicted`, `class:Coat` or `Coat>Shirt` for
                classification (`outputs` lists what there is). None: the stored default. Scores of
                other outputs are computed live by TRAK, which takes seconds the first time, and are
                kept in memory.

        Raises:
            DataloupeError: No such example, algorithm, method or output, or k is not positive.
            StoreError: The scores are not built yet.
        """
        if output is None:
            return explain(self, test, k, algorithm, method)
        from engine.applications.live.explaining import explain_output

        return explain_output(self, test, output, k, algorithm, method)

    def outputs(self, test: int | str, algorithm: str | None = None) -> list[ExampleOutput]:
        """What can be explained of a test example, the default first.

        Families such as `class:NAME` and `A>B` are listed once, with the classes that are most
        likely to be of interest; `explain` takes any class.
        """
        row = resolve_row(self, "test", test)
        return outputs_of(self, row, resolve_algorithm(self, algorithm))

    def predictions(self, split: Split, algorithm: str | None = None) -> pd.DataFrame:
        """One row an example. See `engine.study.models.read_predictions` for the columns."""
        return read_predictions(self, split, algorithm)

    def neighbours(
        self, split: Split, row: int, k: int, algorithm: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k training rows most similar to an example, and their mean cosines, `[k]` each."""
        return find_neighbours(self, split, row, k, algorithm)

    def counterfactual(
        self,
        removed: Iterable[int | str],
        algorithm: str | None = None,
        method: str | None = None,
        by: str | None = None,
    ) -> Counterfactual:
        """Predict what removing training examples would do to every test prediction.

        Args:
            removed: Rows or ids of training examples, in any order.
            by: Column of the data whose groups `by_group` averages over; None: the classes.

        Raises:
            DataloupeError: There is no such example or column, or none or all are removed.
            StoreError: There are no scores yet.
        """
        return predict_counterfactual(self, removed, algorithm, method, by)

    def scores(
        self,
        tests: Sequence[int] | np.ndarray,
        algorithm: str | None = None,
        method: str | None = None,
    ) -> np.ndarray:
        """Attributions `[len(tests), n_train]`, float32. Positive supports, negative opposes."""
        return score_rows(self, tests, algorithm, method)

    def replay(
        self,
        tests: Sequence[int | str] | np.ndarray,
        algorithm: str | None = None,
        seeds: Sequence[int] = (0,),
        **options: Any,
    ) -> np.ndarray:
        """Exact scores `[seeds, tests, n_train]`, by differentiating through training.

        They are in the unit of the output, and kept in the study. See
        `engine.build.replaying.replay`.
        """
        from engine.build.replaying import replay

        return replay(self, tests, algorithm, seeds, **options)

    def bank(self, algorithm: str | None = None, train: bool = True) -> RunBank:
        """The run bank: masks and the outputs of the models trained on them.

        Args:
            train: Also read the outputs on training examples, the larger part.

        Raises:
            StoreError: There is none, some runs are not finished yet, or one cannot be used.
        """
        return read_bank(self, algorithm, train)

    def label_suspicion(self, algorithm: str | None = None) -> LabelSuspicion:
        """How wrong every training label looks. See `engine.applications.curation`."""
        from engine.applications.curation.label_suspicion import label_suspicion

        return label_suspicion(self, algorithm)

    def quality(self, algorithm: str | None = None) -> Quality | None:
        """LDS and calibration of every method; None until they are measured on subset runs."""
        return read_quality(self, resolve_algorithm(self, algorithm))

    def badge(self, algorithm: str | None = None, method: str | None = None) -> Badge:
        """How the scores were made and how good they are."""
        return read_badge(self, algorithm, method)

    def progress(self) -> list[Progress]:
        """What is built, stage by stage."""
        return stage_progress(self)
