"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685), added to a model for training and merged for export."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from rewardline.core.errors import UserError, first_line
from rewardline.model.normalization import NormalizationEntry
from rewardline.model.settings import LoraSettings

if TYPE_CHECKING:  # peft is imported only where adapters are used, as that takes a while
    from peft import PeftModel


def add_adapters(model: PreTrainedModel, lora: LoraSettings, seed: int) -> "PeftModel":
    """Freeze `model`, and add trainable adapters and a trainable copy of its score head to it.

    Raises:
        UserError: the model has no such target modules.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    head = "score" if hasattr(model, "score") else "classifier"
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
        modules_to_save=[head],
    )
    torch.manual_seed(seed)
    try:
        # In the model's dtype, as ZeRO-3 supports only one; the engine keeps trained weights in fp32 anyway.
        return get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise UserError(f"training.lora: {first_line(error)}") from error


_CARD = """---
library_name: peft
---

# {run}, adapters

Low-rank adapters and the score head of {run}, for the base model {model} of its configuration. The merged model is in
the folder above. These give the raw score{raw}.
"""


def merge_adapters(peft_model: "PeftModel", folder: Path) -> PreTrainedModel:
    """Save the adapters alone to `folder`, and return the plain model with the adapters added to its weights."""
    peft_model.save_pretrained(folder)
    merged: PreTrainedModel = peft_model.merge_and_unload()
    return merged


def describe_adapters(folder: Path, run: str, model: str, normalization: NormalizationEntry | None) -> None:
    """Write a model card for the saved adapters, of which a normalization is not a part, folded or not."""
    normalized = ", and the merged model (raw - {mean:.6g}) / {std:.6g}"
    raw = "" if normalization is None else normalized.format(**normalization)
    (folder / "README.md").write_text(_CARD.format(run=run, model=model, raw=raw), encoding="utf-8")
