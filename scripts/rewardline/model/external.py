"""Reward models that the pipeline did not train, loaded strictly from folders and the hub, DeepSpeed-Chat's too."""

import logging
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel

from rewardline.core.errors import UserError
from rewardline.core.files import local_path
from rewardline.core.hub import cached_model
from rewardline.model.deepspeed_chat import KEY_MAPPING, is_deepspeed_chat
from rewardline.model.folder import check_folder
from rewardline.model.loading import DTYPES, load_reward_model
from rewardline.model.weight_files import PICKLES, file_patterns, read_pickles

log = logging.getLogger(__name__)

Dtype = Literal["auto", "fp32", "bf16", "fp16"]


def model_folder(model: str, *, revision: str = "main", code: bool = False, bins: bool = False) -> Path:
    """The folder of a model: the folder `model`, or the cache of the hub's model of this name.

    `code` and `bins`: also fetch the model's own code, and weights in .bin.

    Raises:
        UserError: there is no such folder, or the hub cannot provide it.
    """
    folder = local_path(model)
    if folder.is_dir():
        return folder
    if folder.exists() or model.startswith((".", "/", "~", "results/")) or model.count("/") > 1:
        raise UserError(f"--model {model} is not a folder")
    return cached_model(model, revision, file_patterns(code=code, pickles=bins))


def load_any(
    folder: Path, *, dtype: Dtype = "auto", trust_remote_code: bool = False, convert_bin: bool = False
) -> tuple[PreTrainedModel, bool]:
    """The reward model of a folder, and whether DeepSpeed-Chat saved it.

    `dtype`: auto keeps that of the weights, except that fp16 becomes fp32 on a CPU. `convert_bin`: read weights that
    exist only as .bin, without executing anything in them.

    Raises:
        UserError: it is not a reward model, or a weight is missing, unexpected or not finite.
    """
    torch_dtype: torch.dtype | Literal["auto"] = "auto" if dtype == "auto" else DTYPES[dtype]
    check_folder(folder)
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
    chat = is_deepspeed_chat(weights)
    model = load_reward_model(
        folder,
        next(iter(weights.values())).dtype if torch_dtype == "auto" else torch_dtype,
        trust_remote_code,
        use_safetensors=False,
        **({"key_mapping": KEY_MAPPING, "num_labels": 1} if chat else {}),
    )
    return _checked(folder, model), chat


def _checked(folder: Path, model: PreTrainedModel) -> PreTrainedModel:
    """The model in evaluation mode; raises `UserError` for weights that are not finite."""
    for key, parameter in model.named_parameters():
        if not bool(torch.isfinite(getattr(parameter, "ds_tensor", parameter)).all()):  # of ZeRO-3, a part
            raise UserError(f"{folder}: its weight {key} holds values that are not finite; train or download it again")
    if model.dtype == torch.float16 and not torch.cuda.is_available():
        log.info("%s: weights in fp16, computed in fp32 as there is no GPU", folder)
        model = model.float()
    return model.eval()
