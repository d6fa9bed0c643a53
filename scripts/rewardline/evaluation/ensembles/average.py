"""The mean of the weights of several training runs as one plain model (WARM, Rame et al. 2024, arXiv 2401.12187)."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rewardline.core.artifacts import verify_model, write_sealed
from rewardline.core.errors import UserError
from rewardline.core.files import atomic_folder, read_json, write_json
from rewardline.core.hashing import canonical, digest, file_sha256
from rewardline.evaluation.settings import AverageSettings
from rewardline.model.loading import load_reward_model
from rewardline.model.normalization import KEY, NormalizationEntry, moments, normalize
from rewardline.model.reward_model import RewardModel
from rewardline.model.threads import start_threads
from rewardline.scoring.batch_scorer import score_comparisons
from rewardline.tokens.store import TokenDataset
from rewardline.training.records.model_card import model_card
from rewardline.training.records.run_facts import NormalizationFacts, RunFacts

log = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
_OTHERS = ("adapter", "tensorboard", "README.md", "EVALUATION.md", "log.jsonl", "run.json", WEIGHTS)
"""What of a member's folder is not that of the average."""


def average_weights(settings: AverageSettings, models: Sequence[Path], tokens: Path | None, output: Path) -> None:
    """Write the model to `output`: weights, configuration and tokenizer, `run.json` and a card.

    `models`: the folder of each member, in the order of the settings; `tokens`: those of the mixture, on whose eval
    split the scores are normalized if those of the members are. Members that halving has eliminated, and those whose
    training has diverged, are left out.

    Raises:
        UserError: a file is missing or damaged, the members differ in more than their weights, or none is left.
    """
    known = {model: RunFacts.read(model / "run.json") for model in models}
    models = [model for model, one in known.items() if one.diverged is None and one.eliminated_at is None]
    facts, names = [known[model] for model in models], list(settings.average)
    for run, model in zip(settings.average, known, strict=True):
        if model not in models:
            log.warning("without %s, which has no complete training", run)
            names.remove(run)
    if not models:
        raise UserError(f"runs.{settings.run}.average: all members have diverged or are eliminated; name others")
    for model in models:
        verify_model(model)
    check_members(models, facts)
    start_threads()
    first = facts[0]
    with atomic_folder(output) as out:
        for path in sorted(models[0].iterdir()):
            if path.is_file() and path.name not in _OTHERS and not path.name.startswith("."):
                shutil.copy2(path, out / path.name)
        save_file(dict(mean_weights([model / WEIGHTS for model in models])), out / WEIGHTS, {"format": "pt"})
        entry = _set_normalization(out, None)
        if first.training.normalize and tokens is not None:
            entry = _normalized(out, tokens, first.training.normalize == "fold", settings.trust_remote_code)
        elif first.training.normalize:
            log.warning("the scores are not normalized: the members have no held-out pairs in common")
        log.info("the mean of the weights of %s", ", ".join(names))
        result = first.model_copy(
            update={
                "run": settings.run,
                "sweep": None,
                "seed": None,
                "mixture": settings.mixture,
                "model": settings.model,
                "average": names,
                "train_pairs": max(one.train_pairs for one in facts),
                **{name: sum(getattr(one, name) for one in facts) for name in ("steps", "pairs", "tokens", "seconds")},
                "exported_step": None,
                "computed_tokens": sum(one.computed_tokens for one in facts),
                "continued": [],
                "final": {},
                "finished": max(one.finished for one in facts),
                "key": digest(canonical([one.key for one in facts])),
                "tracker_id": "",
                "normalization": None if entry is None else NormalizationFacts(**entry),
                "weights_sha256": file_sha256(out / WEIGHTS),
            }
        )
        files = [path.name for path in sorted(out.iterdir())]
        write_sealed(out / "run.json", result.as_json(), files)
        (out / "README.md").write_text(model_card(result), encoding="utf-8")


def check_members(models: Sequence[Path], facts: Sequence[RunFacts]) -> None:
    """Raise `UserError` if the mean of these models' weights is not known to be a model."""
    for model, one in zip(models[1:], facts[1:], strict=True):
        for what, same in (
            ("base models", one.base == facts[0].base),
            (
                "tokenizers or templates",
                one.tokenization.get("chat_template") == facts[0].tokenization.get("chat_template"),
            ),
            (
                "readings of `system` (fields)",
                one.tokenization.get("reads_names") == facts[0].tokenization.get("reads_names"),
            ),
            ("heads (training.score)", one.training.score == facts[0].training.score),
            ("attributes (training.objective)", _attributes(model) == _attributes(models[0])),
            ("normalizations (training.normalize)", one.training.normalize == facts[0].training.normalize),
        ):
            if not same:
                raise UserError(f"{models[0]} and {model} have different {what}: the mean of their weights is no model")


def _attributes(model: Path) -> object:
    return read_json(model / "config.json").get(KEY, {}).get("attributes")


def mean_weights(paths: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """Name and mean of each weight, in the order and with the dtypes of the first file; computed in float64.

    Raises:
        UserError: the files have weights of other names, shapes or dtypes.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, framework="pt")) for path in paths]
        names = list(files[0].keys())
        for path, file in zip(paths, files, strict=True):
            if set(file.keys()) != set(names):
                raise UserError(f"{paths[0]} and {path} have weights of different names; average runs of one model")
        for name in names:
            weights = [file.get_tensor(name) for file in files]
            if len({(weight.shape, weight.dtype) for weight in weights}) > 1:
                raise UserError(f"{name} has different shapes or number formats in {paths[0].parent} and the others")
            total = torch.zeros(weights[0].shape, dtype=torch.float64)
            for weight in weights:
                total += weight
            yield name, (total / len(weights)).to(weights[0].dtype)


def _set_normalization(folder: Path, entry: NormalizationEntry | None) -> NormalizationEntry | None:
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, KEY: {**config.get(KEY, {}), "normalization": entry}})
    return entry


def _normalized(folder: Path, tokens: Path, into_weights: bool, trust: bool) -> NormalizationEntry | None:
    """Normalize the model in a folder by its own scores of the eval split."""
    data = TokenDataset(tokens, "eval")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_reward_model(folder, "auto", trust)
    model = RewardModel(loaded.to(device), raw=True, max_length=data.manifest.max_length)
    count, total, squares = 0, 0.0, 0.0
    comparisons = (data[index] for index in range(len(data)))
    for _, outputs in score_comparisons(model, comparisons, device=device, pad_id=int(loaded.config.pad_token_id)):
        wide = (outputs if outputs.ndim == 1 else outputs[:, 0]).astype("float64")
        count, total, squares = count + len(wide), total + float(wide.sum()), squares + float((wide**2).sum())
    entry = normalize(loaded, moments(count, total, squares), into_weights)
    if into_weights:
        state = loaded.state_dict()
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            names = list(file.keys())
        save_file({name: state[name].cpu().contiguous() for name in names}, folder / WEIGHTS, {"format": "pt"})
    return _set_normalization(folder, entry)
