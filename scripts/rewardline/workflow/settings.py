"""The settings of each stage: the part of the configuration that its result depends on, and nothing else."""

import re
from collections.abc import Sequence
from pathlib import Path

from rewardline.core.hashing import digest
from rewardline.data.demo.settings import DemoSettings
from rewardline.data.formats.settings import GROUPED_FORMATS, BenchmarkScoring, ConvertSettings, JoinIndexSettings
from rewardline.data.pairs.settings import (
    CleanSettings,
    GroupSettings,
    MixtureDataset,
    PairsSettings,
    ProbeSettings,
)
from rewardline.data.sources.settings import DownloadSettings
from rewardline.evaluation.settings import EnsembleSettings, EvaluateSettings
from rewardline.model.settings import BaseModelStageSettings
from rewardline.tokens.settings import TokenizeSettings
from rewardline.training.settings import TrainSettings
from rewardline.workflow.config import Config
from rewardline.workflow.runs import Ensemble, Run, probe_benchmarks, sources


def download_settings(config: Config, dataset: str, files: Sequence[str]) -> DownloadSettings:
    """What the download of a dataset depends on; `files` are its local files, if it has any."""
    entry = sources(config)[dataset]
    settings = entry.narrow(DownloadSettings)
    if entry.hub is None:
        settings = settings.replace(split=None, files=list(files) or None)
    return settings


def demo_settings(config: Config, dataset: str) -> DemoSettings:
    """What a generated dataset depends on."""
    settings = sources(config)[dataset].demo
    assert settings is not None
    return settings


def download_file_settings(config: Config, dataset: str, file: str) -> DownloadSettings:
    """What the reading of one local file depends on; its size catches an edit with an older date."""
    columns = sources(config)[dataset].columns
    return DownloadSettings(columns=columns, files=[file], sizes=[Path(file).stat().st_size])


def file_parts(files: Sequence[str]) -> dict[str, str]:
    """Local files by the name of the part that each of them is: readable, and different for different paths."""
    return {f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', Path(file).name)}-{digest(file)[:8]}": file for file in files}


def convert_parts(config: Config, dataset: str, files: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The parts of a dataset that are converted apart, by name, each with its number and how many there are.

    Each local file is a part. A format that takes several rows together needs them all in one part.
    """
    entry = sources(config)[dataset]
    if entry.format in GROUPED_FORMATS or not files:
        count = 1 if entry.format in GROUPED_FORMATS else entry.shards
        return {"all": (0, 1)} if count == 1 else {f"{k}-of-{count}": (k, count) for k in range(count)}
    return dict.fromkeys(file_parts(files), (0, 1))


def join_index_settings(config: Config, dataset: str) -> JoinIndexSettings:
    """What the index of the rows that a dataset joins depends on."""
    return sources(config)[dataset].narrow(JoinIndexSettings)


def convert_settings(config: Config, dataset: str, part: tuple[int, int]) -> ConvertSettings:
    """What the conversion of a part of a dataset depends on."""
    return sources(config)[dataset].narrow(ConvertSettings, part=part[0], parts=part[1])


def mixture_datasets(config: Config, name: str) -> dict[str, MixtureDataset]:
    """The datasets of a mixture; a benchmark is one by itself."""
    return config.mixtures[name].datasets if name in config.mixtures else {name: MixtureDataset()}


def mixture_shards(config: Config, name: str) -> int:
    """How many jobs clean and tokenise the pairs of a mixture or benchmark."""
    if name in config.mixtures:
        return config.mixtures[name].shards
    return 1 if name in probe_benchmarks(config) else config.benchmarks[name].shards


def group_settings(config: Config, name: str) -> GroupSettings:
    """What the comparison of the prompts of a mixture depends on; all of a benchmark is held out."""
    caps = {dataset: entry.cap for dataset, entry in mixture_datasets(config, name).items()}
    if name in config.mixtures:
        return config.mixtures[name].narrow(GroupSettings, caps=caps)
    return GroupSettings(
        caps=caps, eval_fraction=1.0, seed=0, max_reject_fraction=1.0, near_duplicates=None, decontamination=None
    )


def clean_settings(config: Config, name: str, shard: int) -> CleanSettings:
    """What the cleaning of a shard depends on, beside the result of comparing the prompts."""
    weights = {dataset: entry.weight for dataset, entry in mixture_datasets(config, name).items()}
    more = {"weights": weights, "keep_all": _scoring(config, name) is not None}
    place = {"shard": shard, "shards": mixture_shards(config, name)}
    if name in config.mixtures:
        return config.mixtures[name].narrow(CleanSettings, **more, **place)
    return CleanSettings.model_validate({"seed": 0, "near_duplicates": None, **more, **place})


def pairs_settings(config: Config, name: str) -> PairsSettings:
    """What joining the shards of a mixture depends on."""
    fraction = config.mixtures[name].eval_fraction if name in config.mixtures else 1.0
    return PairsSettings(eval_fraction=fraction)


def probe_settings(config: Config, name: str) -> ProbeSettings:
    """What the making of probes depends on."""
    settings = config.benchmarks[name].probes
    assert settings is not None
    return settings


def base_settings(config: Config, model: str, files: Sequence[str]) -> BaseModelStageSettings:
    """What the preparation of a base model depends on; `files` are its local files, if it has any.

    Their sizes catch a change with an older date.
    """
    sizes = [Path(path).stat().st_size for path in files] or None
    settings = config.models[model].narrow(BaseModelStageSettings, sizes=sizes)
    if settings.path is None:
        defaults = {"revision": "main", "convert_bin": False, "trust_remote_code": False}
        settings = settings.replace(**defaults)
    return settings


def tokenize_settings(config: Config, model: str) -> TokenizeSettings:
    """What the tokenising of a mixture depends on."""
    return config.models[model].narrow(TokenizeSettings)


def train_settings(config: Config, run: Run) -> TrainSettings:
    """What a training run depends on."""
    return TrainSettings(
        run=run.run_id,
        mixture=run.mixture,
        model=run.model,
        seed=run.seed,
        training=config.runs[run.name].training,
        trust_remote_code=config.models[run.model].trust_remote_code,
    )


def evaluate_settings(config: Config, run: Run, benchmark: str) -> EvaluateSettings:
    """What the evaluation of a run depends on."""
    return EvaluateSettings(
        run=run.run_id,
        name=run.name,
        mixture=run.mixture,
        model=run.model,
        seed=run.seed,
        benchmark=benchmark,
        scoring=_scoring(config, benchmark),
        trust_remote_code=config.models[run.model].trust_remote_code,
    )


def ensemble_settings(config: Config, ensemble: Ensemble, benchmark: str) -> EnsembleSettings:
    """What the evaluation of an ensemble depends on."""
    return config.ensembles[ensemble.run_id].narrow(
        EnsembleSettings,
        run=ensemble.run_id,
        name=ensemble.run_id,
        mixture=ensemble.mixture,
        model=ensemble.model,
        seed=None,
        benchmark=benchmark,
        scoring=_scoring(config, benchmark),
        ensemble=list(ensemble.members),
    )


def _scoring(config: Config, name: str) -> BenchmarkScoring | None:
    """How a published benchmark computes its figures; None for others, and for mixtures."""
    return config.benchmarks[name].scoring if name in config.benchmarks else None
