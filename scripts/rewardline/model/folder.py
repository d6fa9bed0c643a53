"""What a model's folder is good for: one reading for all programs that take a model."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from rewardline.core.errors import UserError
from rewardline.core.files import read_json
from rewardline.tokens.settings import stated_positions

if TYPE_CHECKING:  # the workflow checks folders too, and needs no torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_HEAD = re.compile(r"(^|\.)(score|logits_proj|(classifier|classification_head)(\.out_proj)?)\.weight")
_OTHER_INPUT = re.compile(r"vision|visual|image|audio")


def check_folder(folder: Path) -> None:
    """Check that a folder holds a model.

    Raises:
        UserError: it has no config.json, or an adapter, for which transformers would load the model that this names.
    """
    if (folder / "adapter_config.json").is_file():
        merge = "merge it into its base (merge_and_unload of peft) and save that in a folder of its own"
        raise UserError(f"{folder}: holds a LoRA adapter (adapter_config.json), not a model; {merge}")
    if (folder / "ensemble.json").is_file():
        raise UserError(f"{folder}: is an ensemble of models, not a model; name one of those in {folder}/members")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: has no config.json; name the folder of a model")


def check_labels(folder: Path, labels: int = 1) -> None:
    """Raise `UserError` if the weights of a folder have the head of a classifier with another number of labels."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as weights:
                sizes = {name: weights.get_slice(name).get_shape()[0] for name in weights.keys() if _HEAD.search(name)}  # noqa: SIM118
        except SafetensorError as error:
            raise UserError(f"{path}: is damaged: {error}; copy or download it again") from error
        if others := [size for size in sizes.values() if size != labels]:
            if labels != 1:
                raise UserError(
                    f"{folder}: has a head with {others[0]} outputs already, and training.objective has {labels} "
                    "attributes; name its base model"
                )
            raise labels_error(folder, others[0])


def weight_shapes(folder: Path) -> dict[str, list[int]]:
    """The shape of each weight in the safetensors of a folder, by name, without reading the weights."""
    index, names = folder / "model.safetensors.index.json", ["model.safetensors"]
    if index.is_file() and not (folder / names[0]).is_file():
        names = sorted(set(read_json(index)["weight_map"].values()))
    shapes: dict[str, list[int]] = {}
    for name in names:
        with safe_open(folder / name, framework="numpy") as weights:
            shapes |= {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    return shapes


def labels_error(folder: Path | str, labels: int) -> UserError:
    """What to say of a classifier with several labels."""
    return UserError(f"{folder}: is a classifier with {labels} labels; a reward model has one. Name another model")


def usable_positions(model: "PreTrainedModel") -> int | None:
    """The most tokens of a sequence; None for a model without a limit.

    Of the position embeddings of RoBERTa and its relatives, the first ones, up to that of the padding id, are for
    padding; those of OPT and BART begin with two that are not used.
    """
    stated = stated_positions(model.config.get_text_config().to_dict())
    limits = [stated] if stated is not None and stated > 0 else []
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if (
            (last == "wpe" or "position" in last)
            and hasattr(module, "num_embeddings")
            and not _OTHER_INPUT.search(name)
        ):
            padding = module.padding_idx
            limits.append(module.num_embeddings - (getattr(module, "offset", 0) if padding is None else padding + 1))
    return min(limits, default=None)


def check_vocabulary(embeddings: int, tokenizer: "PreTrainedTokenizerFast", *, grows: bool) -> None:
    """Check that a model has embeddings for the tokens of a tokenizer.

    `grows`: it gets those of added tokens before it is trained; else only that of the padding token may be missing.

    Raises:
        UserError: it has not.
    """
    added = tokenizer.added_tokens_decoder if grows else ()
    ids = (index for token, index in tokenizer.get_vocab().items() if token != tokenizer.pad_token)
    highest = max(index for index in ids if index not in added)
    if highest >= embeddings:
        raise UserError(
            f"the tokenizer has tokens up to {highest}, the model embeddings for {embeddings}: they do not belong "
            "together; use the model's own tokenizer"
        )
