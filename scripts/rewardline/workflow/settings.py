"""The settings of each stage: the part of the configuration that its result depends on, and nothing else."""

import re
from collections.abc import Sequence
from pathlib import Path

from rewardline.core.errors import UserError
from rewardline.core.hashing import digest
from rewardline.data.formats.settings import CODED_FORMATS, GROUPED_FORMATS, ConvertSettings, JoinIndexSettings
from rewardline.data.pairs.settings import (
    AugmentSettings,
    CleanSettings,
    FoldSettings,
    GroupSettings,
    MixtureDataset,
    PairsSettings,
    RelabelSettings,
)
from rewardline.data.remote.addresses import file_name, is_remote
from rewardline.data.remote.fetched import FetchSettings
from rewardline.data.remote.versions import Version
from rewardline.data.sources.local_files import expand_files
from rewardline.data.sources.settings import DownloadSettings
from rewardline.evaluation.published.registry import BENCHMARKS
from rewardline.evaluation.settings import (
    HELD_OUT,
    AuditSettings,
    AverageSettings,
    EnsembleSettings,
    EvaluateSettings,
    SelectSettings,
    ShareSettings,
)
from rewardline.model.folder import check_folder
from rewardline.model.settings import BaseModelSettings, BaseModelStageSettings
from rewardline.scoring.stage_settings import ChooseSettings, CollectSettings, RowsSettings
from rewardline.tokens.settings import JoinTokensSettings, TokenizeSettings, tokenizer_files
from rewardline.training.halving import HalvingSettings
from rewardline.training.settings import RungSettings, TrackSettings, TrainStageSettings
from rewardline.workflow.config import Config, MixtureEntry
from rewardline.workflow.runs import (
    Average,
    Ensemble,
    HalvedSweep,
    LabelingJob,
    Run,
    RunChoice,
    ScoringJob,
    sources,
    stored_sources,
)


def download_settings(config: Config, dataset: str, files: Sequence[str]) -> DownloadSettings:
    """What the download of a dataset depends on; `files` are its local files, if it has any."""
    entry = stored_sources(config)[dataset]
    settings = entry.narrow(DownloadSettings)
    return settings if entry.hub is not None else settings.replace(split=None, files=list(files) or None, sha256={})


def download_file_settings(config: Config, dataset: str, file: str) -> DownloadSettings:
    """What the reading of one file depends on; the size of a local one detects an edit with an older date."""
    entry = stored_sources(config)[dataset]
    sizes = None if is_remote(file) else [Path(file).stat().st_size]
    pins = {name: pin for name, pin in entry.sha256.items() if name == file}
    return DownloadSettings(columns=entry.columns, files=[file], sizes=sizes, sha256=pins)


def fetch_settings(config: Config, dataset: str, address: str, version: Version) -> FetchSettings:
    """What the copy of a file from elsewhere depends on: what is pinned, or else its version."""
    pin = stored_sources(config)[dataset].sha256.get(address)
    return FetchSettings(address=address, version=None if pin else version, sha256=pin)


def file_parts(files: Sequence[str]) -> dict[str, str]:
    """Files by the name of the part that each of them is: readable, and different for different paths."""
    names = {file: file_name(file) if is_remote(file) else Path(file).name for file in files}
    return {f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}-{digest(file)[:8]}": file for file, name in names.items()}


def convert_parts(config: Config, dataset: str, files: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The parts in which a dataset is converted, by name: the number of each, and how many there are.

    Each file is a part. A format that groups rows needs all of them in one part.
    """
    entry = sources(config)[dataset]
    if files and entry.format not in GROUPED_FORMATS:
        return dict.fromkeys(file_parts(files), (0, 1))
    count = 1 if entry.format in GROUPED_FORMATS else entry.shards
    return {"all": (0, 1)} if count == 1 else {f"{k}-of-{count}": (k, count) for k in range(count)}


def labels_are_stated(config: Config, dataset: str) -> bool:
    """Whether the settings of a dataset say what its labels mean; else its first rows have to."""
    entry = sources(config)[dataset]
    return bool(entry.values) or entry.format not in CODED_FORMATS


def join_index_settings(config: Config, dataset: str) -> JoinIndexSettings:
    """What the index of the rows that a dataset joins depends on."""
    return sources(config)[dataset].narrow(JoinIndexSettings)


def convert_settings(config: Config, dataset: str, part: tuple[int, int]) -> ConvertSettings:
    """What the conversion of a part of a dataset depends on."""
    scoring = _scoring(config, dataset)
    shape = BENCHMARKS[scoring].shape if scoring is not None else None
    return sources(config)[dataset].narrow(ConvertSettings, benchmark=shape, part=part[0], parts=part[1])


def mixture(config: Config, name: str) -> MixtureEntry:
    """A mixture; for a benchmark, a mixture of it alone, whose pairs are all held out."""
    if name in config.mixtures:
        return config.mixtures[name]
    benchmark = config.benchmarks[name]
    return MixtureEntry.model_construct(
        datasets={name: MixtureDataset()},
        eval_fraction=1.0,
        select_fraction=None,
        seed=0,
        max_reject_fraction=1.0,
        near_duplicates=None,
        decontamination=None,
        shards=benchmark.shards if benchmark.probes is None else 1,
    )


def group_settings(config: Config, name: str) -> GroupSettings:
    """What the comparison of the prompts of a mixture or benchmark depends on."""
    entry = mixture(config, name)
    caps = {dataset: share.cap for dataset, share in entry.datasets.items()}
    return entry.narrow(GroupSettings, eval_fraction=entry.held_out, caps=caps)


def clean_settings(config: Config, name: str, shard: int) -> CleanSettings:
    """What the cleaning of a shard depends on, besides the result of comparing the prompts."""
    entry = mixture(config, name)
    weights = {dataset: share.weight for dataset, share in entry.datasets.items()}
    return entry.narrow(CleanSettings, weights=weights, keep_all=_scoring(config, name) is not None, shard=shard)


def pairs_settings(config: Config, name: str) -> PairsSettings:
    """What joining the shards of a mixture depends on."""
    return mixture(config, name).narrow(PairsSettings)


def fold_settings(config: Config, fold: str) -> FoldSettings:
    """What a fold of an audit depends on."""
    return config.folds[fold].narrow(FoldSettings)


def relabel_settings(config: Config, name: str) -> RelabelSettings:
    """What a mixture depends on that an audit has cleaned."""
    return mixture(config, name).narrow(RelabelSettings)


def augment_settings(config: Config, name: str) -> AugmentSettings:
    """What a mixture depends on that augments another one."""
    return mixture(config, name).narrow(AugmentSettings)


def audit_settings(config: Config, audit: str) -> AuditSettings:
    """What an audit depends on, beside the scores of its folds."""
    return config.audits[audit].narrow(AuditSettings, audit=audit)


def model_files(model: BaseModelSettings) -> list[str]:
    """The local files of a model, and of the tokenizer that it takes its chat template from.

    Raises:
        UserError: a path names a local folder or file that does not exist, or a folder without a model.
    """
    source = model.chat_template_from or ""
    if source.startswith((".", "/", "~")) and not Path(source).is_dir():
        raise UserError(f"chat_template_from: {source} is not a folder")
    files = tokenizer_files(Path(source)) if source and Path(source).is_dir() else []
    return [*_weight_files(model), *map(str, files)]


def _weight_files(model: BaseModelSettings) -> list[str]:
    if model.gguf is not None:
        return [] if model.gguf.wheel else expand_files([model.gguf.file])
    path = model.path or ""
    if path and Path(path).is_dir():
        check_folder(Path(path))
        files = [file for file in Path(path).iterdir() if file.is_file() and not file.name.startswith(".")]
        return expand_files(sorted(map(str, files)))
    if path.startswith((".", "/", "~")):
        raise UserError(f"path: {path} is not a folder")
    return []


def base_settings(config: Config, model: str, files: Sequence[str]) -> BaseModelStageSettings:
    """What the preparation of a base model depends on; the sizes of its local files detect edits with an older date."""
    sizes = [Path(path).stat().st_size for path in files] or None
    settings = config.models[model].narrow(BaseModelStageSettings, sizes=sizes)
    if settings.path is None:
        settings = settings.replace(revision="main", convert_bin=False, trust_remote_code=False)
    return settings


def tokenize_settings(config: Config, model: str) -> TokenizeSettings:
    """What the tokenization of a mixture depends on."""
    return config.models[model].narrow(TokenizeSettings)


def join_settings(config: Config, name: str) -> JoinTokensSettings:
    """What joining the tokens of a mixture depends on."""
    return mixture(config, name).narrow(JoinTokensSettings, reads_names=config.reads_names(name))


def train_settings(config: Config, run: Run, rung: RungSettings | None = None) -> TrainStageSettings:
    """What a training run depends on, or that to a rung."""
    remote = config.models[run.model].trust_remote_code
    entry = config.runs[run.name]
    choosing = {name: choosing_share(config, run.mixture, name) for name in entry.training.deciding_sets}
    values = {"fraction": entry.fraction, "choosing": choosing, "training": entry.training, "rung": rung}
    return run.narrow(TrainStageSettings, run=run.run_id, trust_remote_code=remote, **values)


def eval_sets(config: Config, run: Run) -> list[str]:
    """The benchmarks that a run is evaluated on while it trains."""
    return [name for name in config.runs[run.name].training.eval_sets if name != HELD_OUT]


def rung_settings(config: Config, run: Run, sweep: HalvedSweep, number: int) -> TrainStageSettings:
    """What the training of a run to a rung of its sweep depends on."""
    share = choosing_share(config, run.mixture, HELD_OUT)
    return train_settings(config, run, RungSettings(number=number, step=sweep.steps[number], share=share))


def halving_settings(name: str, sweep: HalvedSweep, number: int) -> HalvingSettings:
    """What the choice of the cells that continue after a rung depends on."""
    return HalvingSettings(sweep=name, step=sweep.steps[number], keep=sweep.kept(number), cells=sweep.cells)


def track_settings(config: Config, run: Run) -> TrackSettings:
    """What the records of a run's benchmarks depend on."""
    return TrackSettings(run=run.run_id, loggers=config.runs[run.name].training.loggers)


def evaluate_settings(config: Config, run: Run, benchmark: str) -> EvaluateSettings:
    """What the evaluation of a run depends on."""
    remote, scoring = config.models[run.model].trust_remote_code, _scoring(config, benchmark)
    values = {"run": run.run_id, "trust_remote_code": remote, "threads": threads(config, run)}
    values["average"] = list(run.members) if isinstance(run, Average) else []
    return run.narrow(EvaluateSettings, benchmark=benchmark, scoring=scoring, **values)


def share_settings(config: Config, run: Run, benchmark: str, shard: int) -> ShareSettings:
    """What the scores of a shard of a benchmark depend on."""
    shards = config.evaluation.shards_of(benchmark)
    return evaluate_settings(config, run, benchmark).narrow(ShareSettings, shard=shard, shards=shards)


def rows_settings(config: Config, job: ScoringJob, shard: int) -> RowsSettings:
    """What the scores of a shard of the rows depend on."""
    return RowsSettings(
        name=job.name,
        trust_remote_code=config.models[job.trained.model].trust_remote_code,
        threads=threads(config, job.trained),
        shard=shard,
        shards=job.shards,
    )


def collect_settings(config: Config, job: ScoringJob) -> CollectSettings:
    """What the collected scores of a scoring job depend on; without pairs, they do not depend on a mixture."""
    entry = config.scoring[job.name]
    rules = {} if entry.pairs is None else _comparison(config, job.mixtures[0])
    return entry.narrow(CollectSettings, name=job.name, run=job.run, **rules)


def choose_settings(config: Config, job: LabelingJob) -> ChooseSettings:
    """What the choice of pairs to label depends on, beside the scores."""
    entry, runs = config.to_label[job.name], [member.run for member in job.members]
    by = entry.by or ("disagreement" if len(runs) > 1 else "uncertainty")
    return entry.narrow(ChooseSettings, name=job.name, runs=runs, by=by, **_comparison(config, job.mixtures[0]))


def _comparison(config: Config, mixture: str) -> dict[str, object]:
    """How prompts are compared with those of benchmarks and with each other: as in a mixture."""
    entry = config.mixtures[config.source_of(mixture)]
    return {"near_duplicates": entry.near_duplicates, "decontamination": entry.decontamination}


def threads(config: Config, run: Run) -> int:
    """The threads of a process that trains or evaluates a run."""
    return config.runs[run.first.name if isinstance(run, Average) else run.name].training.threads


def average_settings(config: Config, average: Average) -> AverageSettings:
    """What the mean of the weights of several runs depends on."""
    remote = config.models[average.model].trust_remote_code
    values = {"average": list(average.members), "trust_remote_code": remote, "threads": threads(config, average)}
    return average.narrow(AverageSettings, run=average.run_id, **values)


def ensemble_settings(config: Config, ensemble: Ensemble, benchmark: str) -> EnsembleSettings:
    """What the evaluation of an ensemble depends on."""
    members, scoring = list(ensemble.members), _scoring(config, benchmark)
    entry = config.ensembles[ensemble.name]
    combine = {"combine": entry.combine, "variance_weight": entry.variance_weight}
    return ensemble.narrow(
        EnsembleSettings, run=ensemble.run_id, benchmark=benchmark, scoring=scoring, ensemble=members, **combine
    )


def select_settings(config: Config, choice: RunChoice) -> SelectSettings:
    """What the choice of a run depends on."""
    return choice.narrow(SelectSettings, share=choosing_share(config, choice.mixture, choice.benchmark))


def choosing_share(config: Config, mixture: str, benchmark: str) -> float:
    """The share of the prompts of a benchmark, or of a mixture's eval split, by which runs are chosen."""
    return config.mixtures[mixture].choosing if benchmark == HELD_OUT else 0.5


def _scoring(config: Config, name: str) -> str | None:
    """The scoring of a published benchmark; None for others, and for mixtures."""
    return config.benchmarks[name].scoring if name in config.benchmarks else None
