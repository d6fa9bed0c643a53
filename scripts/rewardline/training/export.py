"""Export of a trained model: the choice of its weights, and a plain Hugging Face folder."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rewardline.model import lora
from rewardline.model.loading import DTYPES, load_base, save_reward_model
from rewardline.model.normalization import AttributeEntry, Normalization, NormalizationEntry, normalize
from rewardline.model.reward_model import RewardModel
from rewardline.training import engine
from rewardline.training.early_stopping import Selection, best_file
from rewardline.training.processes.collectives import all_agree
from rewardline.training.settings import TrainingSettings, TrainStageSettings

log = logging.getLogger(__name__)


def take_best_weights(
    model: RewardModel, selection: Selection, folder: Path, training: TrainingSettings, last: int
) -> int:
    """Give the model, after step `last`, the weights that are to be exported; returns their step.

    These are the last ones, or with `keep_best` those of the best evaluation. Every process must call it.
    """
    if not training.keep_best or selection.best_step == last:
        return last
    if not all_agree(lambda: selection.is_kept(folder)):
        log.warning("no best weights were kept; the last ones, of step %d, are exported", last)
        return last
    log.info(
        "exporting the weights of step %d: its loss of %s, %.4f, was the lowest",
        selection.best_step, training.best_by, selection.best_loss,
    )  # fmt: skip
    best = load_file(best_file(folder, selection.best_step))
    for name, parameter in model.model.named_parameters():
        if name in best:
            with engine.gathered([parameter], write=True), torch.no_grad():
                parameter.copy_(best[name])
    return selection.best_step


def export_model(
    settings: TrainStageSettings,
    base: Path,
    tokenizer: PreTrainedTokenizerFast,
    state: dict[str, Tensor],
    folder: Path,
    normalization: Normalization | None,
    attributes: Sequence[AttributeEntry] = (),
) -> NormalizationEntry | None:
    """Save weights, configuration and tokenizer to `folder`; returns the normalization as config.json has it.

    `state`: all parameters of the trained model, adapters included; these are merged, and also saved by themselves.
    `attributes`: the outputs of a model with several.

    Raises:
        OSError: a file cannot be written, as on a full disk.
    """
    training, dtype = settings.training, DTYPES[settings.training.precision]
    # A fresh model, so that what is saved does not depend on how training was distributed.
    model = load_base(
        base, tokenizer, seed=settings.seed, dtype=torch.float32 if training.lora else dtype,
        trust_remote_code=settings.trust_remote_code, outputs=len(attributes) or 1,
    )  # fmt: skip
    adapters = lora.add_adapters(model, training.lora, settings.seed) if training.lora else None
    model.load_state_dict(state, strict=True)
    try:
        if adapters is not None:
            model = lora.merge_adapters(adapters, folder / "adapter").to(dtype)
        stored = normalize(model, normalization, training.normalize == "fold")
        if adapters is not None:
            lora.describe_adapters(folder / "adapter", settings.run, settings.model, stored)
        save_reward_model(model, tokenizer, folder, score=training.score, normalization=stored, attributes=attributes)
    except SafetensorError as error:
        raise OSError(f"the model cannot be written below {folder.parent}: {error}") from error
    return stored
