"""Strict loading of base models and reward models, and saving for plain transformers."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast
from transformers.integrations import deepspeed as zero3
from transformers.utils import logging as transformers_logging

from rewardline.core.errors import UserError, first_line, refused_by_system
from rewardline.core.files import read_json, write_json
from rewardline.core.settings import JsonObject
from rewardline.model.folder import check_folder, check_labels, check_vocabulary, labels_error, weight_shapes
from rewardline.model.normalization import KEY, AttributeEntry, NormalizationEntry, ScoreConfig, score_config
from rewardline.model.score_positions import Score
from rewardline.tokens.tokenizer import save_tokenizer

log = logging.getLogger(__name__)

Gathered = Callable[[list[nn.Parameter]], AbstractContextManager[object]]
"""A context manager in which parameters are complete and may be written, for ZeRO-3."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LM_HEADS = (
    *("lm_head.", "embed_out.", "cls.", "vocab_", "lm_predictions.", "mask_predictions."),
    *("decoder.weight", "decoder.bias"),  # ModernBERT's; not decoder.layers, as of OPT
)
"""Prefixes of the names of heads of a base model that a reward model does not have."""
CHECKED_IN_4 = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "smollm3", "phi3"),
    *("gpt2", "gpt_neox", "opt", "bloom", "bert", "roberta", "modernbert"),
)
"""Types of models whose saved folders give equal scores in transformers 4.57."""
ROPE_IN_4 = ("default", "linear", "dynamic", "llama3", "yarn")
"""Types of rotary embeddings of which that is so."""
RAW_SCORES = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
"""An entry of config.json without which other programs return the sigmoid of a score.

These are sentence-transformers' `CrossEncoder`, and vLLM where it does not look at `problem_type`.
"""
HEADS = (".score.", ".classifier.", ".pre_classifier.", ".pooler.")
"""Parts of a reward model that a base model may lack."""


LoadingInfo = dict[str, set[str]]
"""The names of missing, unexpected and mismatched weights, as transformers report them."""


def load_base(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    dropout: float | None = None,
    trust_remote_code: bool = False,
    gathered: Gathered = lambda _: nullcontext(),
    outputs: int = 1,
) -> PreTrainedModel:
    """A base model with its score head, or with a new one drawn from N(0, 1 / (hidden size + 1)) by `seed`.

    Only the head may be new (initialization as in Stiennon et al. 2020, arXiv 2009.01325). `outputs`: their number.

    Raises:
        UserError: the folder cannot be loaded, or weights are missing or unexpected.
    """
    check_folder(folder)
    check_labels(folder, outputs)
    options = {} if dropout is None else _dropout_options(folder, dropout, trust_remote_code)
    torch.manual_seed(seed)  # for an encoder's pooler, which its base model may also lack
    model, info = _load(folder, dtype, trust_remote_code, num_labels=outputs, **options)
    new = {key for key in info["missing_keys"] if any(head in f".{key}" for head in HEADS)}
    if not new:
        log.info("%s has a score head already; training continues with it", folder)
    unexpected = {key for key in info["unexpected_keys"] if not key.startswith(LM_HEADS)}
    _check_weights(folder, {**info, "missing_keys": info["missing_keys"] - new, "unexpected_keys": unexpected})
    check_vocabulary(model.get_input_embeddings().num_embeddings, tokenizer, grows=True)
    _resize_vocabulary(model, tokenizer, gathered)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if name in new and name.startswith(("score.", "classifier.")):
            with gathered([parameter]), torch.no_grad():
                if parameter.ndim == 2:
                    scale = (parameter.shape[1] + 1) ** -0.5
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
                elif parameter.numel():
                    parameter.zero_()
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False
    return model


def _resize_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, gathered: Gathered) -> None:
    """Add embeddings for tokens that were added to the tokenizer: the mean of all others, zeros for padding."""
    old, size = model.get_input_embeddings().num_embeddings, len(tokenizer)
    if size > old:
        model.resize_token_embeddings(size, mean_resizing=False)
        weight = model.get_input_embeddings().weight
        with gathered([weight]), torch.no_grad():
            weight[old:] = weight[:old].float().mean(0).to(weight.dtype)
            weight[max(old, tokenizer.pad_token_id) : tokenizer.pad_token_id + 1] = 0


def load_reward_model(
    folder: Path | str, dtype: torch.dtype | str = torch.float32, trust_remote_code: bool = False, **options: object
) -> PreTrainedModel:
    """A trained reward model with exactly the weights of its files; `options` are further ones of `from_pretrained`.

    Raises:
        UserError: the folder cannot be loaded, it has no score head or several labels, or weights are missing,
            unexpected or of another shape.
    """
    model, info = _load(folder, dtype, trust_remote_code, **options)
    heads = sorted(key for key in info["missing_keys"] if key.startswith(("score.", "classifier.")))
    if heads:
        raise UserError(
            f"{folder}: is not a reward model: its score head ({heads[0]}) is missing. Name a trained reward model; a "
            "base model becomes one by training"
        )
    if model.config.num_labels != max(1, len(score_config(model).get("attributes", []))):
        raise labels_error(folder, model.config.num_labels)
    _check_weights(folder, info)
    return model


def _load(
    folder: Path | str, dtype: torch.dtype | str, trust: bool, **options: object
) -> tuple[PreTrainedModel, LoadingInfo]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        is_partitioned = zero3.is_deepspeed_zero3_enabled()
        unexpected = _unexpected_weights(Path(folder), trust, options.get("num_labels")) if is_partitioned else set()
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(folder),
            dtype=dtype,
            trust_remote_code=trust,
            output_loading_info=True,
            **{"use_safetensors": True, **options},
        )
    except Exception as error:
        if refused_by_system(error):
            raise
        raise UserError(f"{folder}: cannot be loaded as a reward model: {first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    return model, {**info, "unexpected_keys": info["unexpected_keys"] | unexpected}


def _unexpected_weights(folder: Path, trust: bool, num_labels: object) -> set[str]:
    """The names of weights in a folder that the model does not have, which transformers do not report with ZeRO-3.

    Weights of another shape are an error in all processes. Neither they nor the model take memory here.
    """
    active = zero3._hf_deepspeed_config_weak_ref()
    zero3.unset_hf_deepspeed_config()
    try:
        labels = {} if num_labels is None else {"num_labels": num_labels}
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust, **labels)
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=trust)
        shapes = weight_shapes(folder)
        weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        with torch.random.fork_rng(devices=()):  # a missing head is drawn
            _, info = type(model).from_pretrained(
                None, config=config, state_dict=weights, device_map="meta", output_loading_info=True
            )
    finally:
        zero3.set_hf_deepspeed_config(active)
    return set(info["unexpected_keys"])


def _check_weights(folder: Path | str, info: LoadingInfo) -> None:
    problems = {
        "missing_keys": "are missing",
        "unexpected_keys": "are left over",
        "mismatched_keys": "have another shape",
    }
    for kind, problem in problems.items():
        if names := sorted(map(str, info[kind])):
            raise UserError(
                f"{folder}: {len(names)} weights {problem} ({', '.join(names[:3])}...); its files and config.json "
                "do not belong together"
            )


def _dropout_options(folder: Path, dropout: float, trust: bool) -> dict[str, float]:
    """All dropout rates of a model's configuration, set to one value."""
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust)
    names = [name for name in config.to_dict() if name.endswith(("dropout", "_pdrop", "dropout_prob"))]
    return {name: dropout for name in names if isinstance(getattr(config, name), float | int)}


def save_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    state: dict[str, Tensor] | None = None,
    *,
    score: Score = "end",
    normalization: NormalizationEntry | None = None,
    attributes: Sequence[AttributeEntry] = (),
) -> None:
    """Save a folder that plain transformers load: one safetensors file, a label for each output, a padding token.

    The only label is the score, or the labels are `attributes`. The outputs are equal where `score` is `end` and no
    normalization is left to apply; the entry in config.json is for `RewardModel`. Transformers 4.57 load it
    as well, see `runs_in_transformers_4`. `state`: the weights to save, None for those of `model`.
    """
    entry = ScoreConfig(score=score, normalization=normalization)
    if attributes:
        entry["attributes"] = list(attributes)
    setattr(model.config, KEY, entry)
    model.config.num_labels = len(attributes) or 1
    if attributes:
        model.config.id2label = {number: attribute["name"] for number, attribute in enumerate(attributes)}
        model.config.label2id = {name: number for number, name in model.config.id2label.items()}
    model.config.problem_type = "regression"
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder, state_dict=state, max_shard_size="1TB")
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, **older_rope(config), **older_layers(config), **RAW_SCORES})
    save_tokenizer(tokenizer, folder)


def runs_in_transformers_4(model: PreTrainedModel) -> bool:
    """Whether a saved model is known to give equal scores in transformers 4.57."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    kinds = {part["rope_type"] for part in (rope, *rope.values()) if isinstance(part, dict) and "rope_type" in part}
    return model.config.model_type in CHECKED_IN_4 and kinds.issubset(ROPE_IN_4)


def older_rope(config: JsonObject) -> JsonObject:
    """The settings of rotary embeddings in a config.json as transformers before 5 name them."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return {}
    if isinstance(full := rope.get("full_attention"), dict) and isinstance(
        local := rope.get("sliding_attention"), dict
    ):
        high, low = full["rope_theta"], local["rope_theta"]
        gemma, modern_bert = ("rope_theta", "rope_local_base_freq"), ("global_rope_theta", "local_rope_theta")
        thetas = {name: theta for names in (gemma, modern_bert) for name, theta in zip(names, (high, low), strict=True)}
        return {**thetas, **_older_scaling(full, thetas)}
    found: JsonObject = {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    if config["model_type"] == "gpt_neox":
        found |= {"rotary_emb_base": rope["rope_theta"], "rotary_pct": rope["partial_rotary_factor"]}
    return {**found, **_older_scaling(rope, found)}


def older_layers(config: JsonObject) -> JsonObject:
    """ModernBERT's layers with full attention as transformers before 5 and text-embeddings-inference name them."""
    kinds = config.get("layer_types")
    if config["model_type"] != "modernbert" or not isinstance(kinds, list):
        return {}
    every = next((k for k, kind in enumerate(kinds) if k and kind == "full_attention"), len(kinds))
    return {"global_attn_every_n_layers": every}


def _older_scaling(rope: JsonObject, others: JsonObject) -> JsonObject:
    if rope.get("rope_type", "default") == "default":
        return {}
    return {"rope_scaling": {name: value for name, value in rope.items() if name not in others}}
