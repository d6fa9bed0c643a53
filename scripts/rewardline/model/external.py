"""Reward models that the pipeline did not train, loaded strictly: from folders and the hub, DeepSpeed-Chat's too."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from rewardline.core.errors import UserError, first_line
from rewardline.core.hub import cached_model
from rewardline.model.deepspeed_chat import is_deepspeed_chat, renamed
from rewardline.model.loading import DTYPES, check_reward_model, load_reward_model
from rewardline.model.weight_files import CODE_FILES, DATA_FILES, PICKLES, read_pickles

log = logging.getLogger(__name__)

Dtype = Literal["auto", "fp32", "bf16", "fp16"]


def model_folder(model: str, *, revision: str = "main", code: bool = False, bins: bool = False) -> Path:
    """The folder of a model: itself, or that of the hub's model of this name, in the cache.

    `code` and `bins`: fetch the model's own code, and weights in .bin, as well.

    Raises:
        UserError: there is no such folder, or the hub cannot provide it.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or model.startswith((".", "/", "~", "results/")) or model.count("/") > 1:
        raise UserError(f"--model {model} is not a folder")
    patterns = [*DATA_FILES, *([CODE_FILES] if code else []), *([PICKLES] if bins else [])]
    return cached_model(model, revision, patterns)


def load_any(
    folder: Path, *, dtype: Dtype = "auto", trust_remote_code: bool = False, convert_bin: bool = False
) -> tuple[PreTrainedModel, bool]:
    """The reward model of a folder, and whether DeepSpeed-Chat saved it.

    `dtype`: auto keeps that of the weights, but for fp16 on a CPU, which becomes fp32. `convert_bin`: read weights that
    exist only as .bin, without executing anything in them.

    Raises:
        UserError: it is not a reward model, or a weight is missing, left over or not finite.
    """
    torch_dtype: torch.dtype | Literal["auto"] = "auto" if dtype == "auto" else DTYPES[dtype]
    if (folder / "adapter_config.json").is_file() and not any(folder.glob("model*.safetensors")):
        raise UserError(
            f"{folder}: holds a LoRA adapter alone; merge it into its base (merge_and_unload of peft) and save that"
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: has no config.json; name the folder of a trained reward model")
    if any(folder.glob("*.safetensors")):
        return _checked(folder, load_reward_model(folder, torch_dtype, trust_remote_code)), False
    bins = sorted(folder.glob(PICKLES))
    if not bins:
        raise UserError(
            f"{folder}: has no weights as safetensors beside config.json; with --convert-bin, pytorch_model*.bin would "
            "be read as well"
        )
    if not convert_bin:
        raise UserError(
            f"{folder}: its weights exist only as {bins[0].name}, a pickle. Give --convert-bin to read them without "
            "executing code"
        )
    weights = read_pickles(bins)
    model = _from_weights(folder, weights, torch_dtype, trust_remote_code)
    return _checked(folder, model), is_deepspeed_chat(weights)


def _from_weights(
    folder: Path, weights: Mapping[str, Tensor], dtype: torch.dtype | Literal["auto"], trust: bool
) -> PreTrainedModel:
    """A sequence classifier with these weights, as strictly as from a file."""
    chat = is_deepspeed_chat(weights)
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust)
        if chat:
            config.num_labels = 1
        with torch.device("meta"):
            empty = AutoModelForSequenceClassification.from_config(config, trust_remote_code=trust)
        state = renamed(weights, empty.base_model_prefix) if chat else dict(weights)
        if dtype == "auto":
            dtype = next(iter(state.values())).dtype
        model, info = type(empty).from_pretrained(
            None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
        )
    except Exception as error:
        raise UserError(f"{folder}: cannot be loaded as a reward model: {first_line(error)}") from error
    check_reward_model(folder, model, info)
    return model


def _checked(name: Path, model: PreTrainedModel) -> PreTrainedModel:
    """The model ready to score; fails on weights that are not finite."""
    for key, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise UserError(f"{name}: its weight {key} holds values that are not finite; train or download it again")
    if model.dtype == torch.float16 and not torch.cuda.is_available():
        log.info("%s: weights in fp16, computed in fp32 as there is no GPU", name)
        model = model.float()
    return model.eval()
