"""Progress of each stage of a build, counted from the files that exist."""

from __future__ import annotations

from engine.store import layout
from engine.store.layout import DATAMODEL, HYBRID, MAP_KINDS, TRAK
from engine.store.records import Progress
from engine.study.live_and_maps import has_live
from engine.study.methods import has_scores, scored_methods
from engine.study.models import has_predictions
from engine.study.neighbours import has_neighbours
from engine.study.reader import StudyReader
from engine.study.removal_runs import finished_removals, wanted_removals
from engine.study.run_banks import finished_runs, is_tuned, wanted_runs, wants_bank
from engine.study.training_datamodels import has_training_datamodels


def stage_progress(study: StudyReader) -> list[Progress]:
    """Progress of each stage, counted from the files that exist."""
    stages = [Progress("data", None, int(study.has_data), 1)]
    for name in study.spec.algorithms:
        total = study.checkpoints(name)
        trained = sum(
            layout.outputs_file(study.root, name, m, "train").exists() for m in range(total)
        )
        scored = sum(
            layout.dual_file(study.root, name, m).exists()
            or layout.factors_file(study.root, name, m).exists()
            for m in range(total)
        )
        stages += [
            Progress("checkpoints", name, trained, total),
            Progress("predictions", name, int(has_predictions(study, name)), 1),
            Progress("neighbours", name, int(has_neighbours(study, name)), 1),
            Progress("trak", name, scored, total),
            Progress("search", name, int(has_scores(study, name, TRAK)), 1),
            Progress("live", name, int(has_live(study, name)), 1),
        ]
        if wants_bank(study, name):
            stages.append(_bank_progress(study, name))
            if is_tuned(study, name):
                chosen = layout.tuning_file(study.root, name).exists()
                stages.append(Progress("tuning", name, int(chosen), 1))
            fitted = sum(
                layout.method_file(study.root, name, m).exists() for m in (DATAMODEL, HYBRID)
            )
            training = study.spec.subset_runs.training_targets
            fitted += int(training and has_training_datamodels(study, name))
            stages.append(Progress("datamodels", name, fitted, 2 + int(training)))
            if removals := wanted_removals(study, name):
                stages.append(Progress("removals", name, finished_removals(study, name), removals))
            measured = layout.quality_file(study.root, name).exists()
            stages.append(Progress("quality", name, int(measured), 1))
    for name in study.spec.algorithms:
        wanted = [(m, kind) for m in scored_methods(study, name) or [TRAK] for kind in MAP_KINDS]
        drawn = sum(
            layout.map_file(study.root, name, method, kind).exists() for method, kind in wanted
        )
        stages.append(Progress("map", name, drawn, len(wanted)))
    return stages


def _bank_progress(study: StudyReader, algorithm: str) -> Progress:
    if layout.bank_import_file(study.root, algorithm).exists():
        return Progress("bank", algorithm, 1, 1)
    finished, wanted = finished_runs(study, algorithm), wanted_runs(study)
    return Progress("bank", algorithm, len(finished), len(wanted))
