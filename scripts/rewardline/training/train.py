"""A training as one process sees it: from the base model to the exported reward model."""

import logging
import shutil
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.integrations import HfDeepSpeedConfig

from rewardline.core import versions
from rewardline.core.errors import UserError
from rewardline.core.files import apply_umask, read_json, write_json
from rewardline.core.hashing import file_sha256
from rewardline.core.runtime import rank, world_size
from rewardline.model import lora
from rewardline.model.loading import DTYPES, load_base, save_reward_model
from rewardline.model.normalization import Normalization, normalize
from rewardline.model.reward_model import RewardModel
from rewardline.tokens.store import TokenDataset
from rewardline.tokens.tokenizer import load_tokenizer
from rewardline.training import checkpoints, early_stopping, engine, loggers, throughput
from rewardline.training.loop import Trainer
from rewardline.training.loss import check_objective
from rewardline.training.model_card import model_card
from rewardline.training.settings import TrainSettings
from rewardline.training.throughput import Counts

log = logging.getLogger(__name__)

Json = dict[str, Any]


def train(settings: TrainSettings, tokens: Path, base: Path, folder: Path, key: str) -> None:
    """Train and leave the exported model in `folder/model`. Every process of the training calls it.

    Raises:
        UserError: something that the user can mend, such as a base model that cannot be loaded.
    """
    training = settings.training
    engine.start_processes()
    device = engine.device()
    if training.precision == "fp16" and device.type == "cpu":
        raise UserError("training.precision: fp16 needs a GPU; use fp32 or bf16")
    if training.attention == "flex" and device.type == "cpu":
        raise UserError("training.attention: flex needs a GPU; use auto or sdpa")
    config = engine.deepspeed_config(training)
    data, held_out = TokenDataset(tokens, "train"), TokenDataset(tokens, "eval")
    tokenizer = load_tokenizer(base, settings.trust_remote_code)
    if data.manifest.chat_template:
        tokenizer.chat_template = data.manifest.chat_template
    stage = training.zero_stage
    # While this object lives, transformers loads weights straight into ZeRO-3's shares.
    zero3 = HfDeepSpeedConfig(config) if stage == 3 else None
    model = _base_model(settings, base, tokenizer, DTYPES[training.precision] if stage == 3 else torch.float32)
    if training.lora:
        lora.add_adapters(model, training.lora, settings.seed)
    longest = data.manifest.max_length
    wrapped = RewardModel(
        model, training.batching, training.attention, score=training.score, raw=True, max_length=longest,
        dtype=DTYPES[training.precision],
    )  # fmt: skip
    check_objective(wrapped, training, max_length=longest, eval_pairs=held_out.pairs)
    if training.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    counts = _parameter_counts(wrapped)
    ds_engine = engine.create(wrapped, training, config)
    pad_id = int(tokenizer.pad_token_id)
    peak = throughput.peak_flops(device, training.precision)
    trainer = Trainer(wrapped, ds_engine, settings, data, held_out, folder, pad_id, rank(), world_size(), device)
    log.info(
        "%s: %d pairs in %d comparisons, %d steps, %s batches, %s attention, %s, ZeRO %d, %d process(es) on %s",
        settings.run, data.pairs, len(data), trainer.total_steps, wrapped.batching, wrapped.attention,
        training.precision, stage, world_size(), device,
    )  # fmt: skip
    trainer.run()
    work = trainer.work.total(device)
    step = _take_chosen_step(trainer)
    normalization = trainer.score_moments() if training.normalize else None
    state = engine.full_state(wrapped.model, stage, keep=rank() == 0)
    if rank() == 0:
        del zero3
        facts = _facts(settings, trainer, step, counts, data, device, key)
        facts |= {"base": read_json(base / "manifest.json")["files"]}
        facts |= _use_of_the_machine(trainer, work, peak)
        try:
            _export(settings, base, tokenizer, state, folder, facts, normalization)
        except SafetensorError as error:  # as on a full disk
            raise OSError(f"the model cannot be written below {folder}: {error}") from error
    if world_size() > 1:
        dist.barrier()
    dist.destroy_process_group()


def _base_model(
    settings: TrainSettings, base: Path, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype
) -> PreTrainedModel:
    training = settings.training

    def whole(parameters: Any) -> AbstractContextManager[Any]:
        return engine.gathered(parameters, training.zero_stage, write=True)

    return load_base(
        base,
        tokenizer,
        seed=settings.seed,
        dtype=dtype,
        dropout=training.dropout,
        trust_remote_code=settings.trust_remote_code,
        gathered=whole,
    )


def _take_chosen_step(trainer: Trainer) -> int:
    """The step whose weights are exported; with `keep_best` the model gets those of the best evaluation now."""
    chosen, last = trainer.selection, trainer.totals.step
    if not trainer.training.keep_best or chosen.best_step == last:
        return last
    if not checkpoints.agreed(lambda: early_stopping.is_kept(trainer.folder, chosen)):
        log.warning("no best weights were kept; the last ones, of step %d, are exported", last)
        return last
    log.info(
        "exporting the weights of step %d: its eval loss, %.4f, was the lowest", chosen.best_step, chosen.best_loss
    )
    kept = early_stopping.kept_weights(trainer.folder, chosen)
    for name, parameter in trainer.wrapped.model.named_parameters():
        if name in kept:
            with engine.gathered([parameter], trainer.training.zero_stage, write=True), torch.no_grad():
                parameter.copy_(kept[name])
    return chosen.best_step


def _parameter_counts(model: torch.nn.Module) -> Json:
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return {"parameters": sum(n for n, _ in sizes), "trained_parameters": sum(n for n, trained in sizes if trained)}


def _export(
    settings: TrainSettings,
    base: Path,
    tokenizer: PreTrainedTokenizerFast,
    state: dict[str, torch.Tensor],
    folder: Path,
    facts: Json,
    normalization: Normalization | None,
) -> None:
    """Write the finished model to `folder/model`, which appears whole."""
    training = settings.training
    partial = folder / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    # A plain model of its own, so that what is saved does not depend on how it was shared out for training.
    dtype = torch.float32 if training.lora else DTYPES[training.precision]
    model = load_base(
        base, tokenizer, seed=settings.seed, dtype=dtype, trust_remote_code=settings.trust_remote_code,
        dropout=None, gathered=lambda _: nullcontext(),
    )  # fmt: skip
    if training.lora:
        adapters = lora.add_adapters(model, training.lora, settings.seed)
        model.load_state_dict(state, strict=True)
        model = lora.merge_adapters(adapters, partial / "adapter").to(DTYPES[training.precision])
    else:
        model.load_state_dict(state, strict=True)
    facts["normalization"] = normalize(model, normalization, training.normalize == "fold")
    if training.lora:
        lora.describe_adapters(partial / "adapter", settings.run, settings.model, facts["normalization"])
    save_reward_model(model, tokenizer, partial, score=training.score, normalization=facts["normalization"])
    shutil.copyfile(folder / "log.jsonl", partial / "log.jsonl")
    if (folder / "tensorboard").is_dir():
        shutil.copytree(folder / "tensorboard", partial / "tensorboard")
    facts["weights_sha256"] = file_sha256(partial / "model.safetensors")
    (partial / "README.md").write_text(model_card(facts), encoding="utf-8")
    write_json(partial / "run.json", facts)
    apply_umask(partial)
    partial.replace(folder / "model")


def _use_of_the_machine(trainer: Trainer, work: Counts, peak: tuple[float, str]) -> Json:
    """What `run.json` says of speed: shares of what need not be computed, and utilisation.

    The peak is that of all processes; `peak` as `peak_flops`.
    """
    real = work.real
    totals, model = trainer.totals, trainer.wrapped
    flops = throughput.model_flops(model.model, work, causal=model.is_decoder)
    available = peak[0] * trainer.world
    seconds = max(totals.seconds, 1e-9)
    return {
        "computed_tokens": int(real),
        "shared_share": round(1 - real / max(totals.tokens, 1), 4),
        "padding_share": round(1 - real / max(work.places, 1), 4),
        "model_flops": flops,
        "flops_per_second": round(flops / seconds),
        "peak_flops_per_second": round(available),
        "peak_source": peak[1] if trainer.world == 1 else f"{peak[1]}; times {trainer.world} processes",
        "utilisation": round(flops / seconds / available, 4),
    }


def _facts(
    settings: TrainSettings,
    trainer: Trainer,
    step: int,
    counts: Json,
    data: TokenDataset,
    device: torch.device,
    key: str,
) -> Json:
    """What `run.json` says of the training; its `final` values are those of the exported `step`."""
    totals = trainer.totals
    lines = loggers.log_lines(trainer.folder / "log.jsonl")
    final: Json = {}
    for line in (line for line in lines if line["step"] <= step):
        final |= {name: value for name, value in line.items() if name.startswith("eval_") or name == "loss"}
    manifest = data.manifest.as_json()
    splits = manifest.pop("splits")
    return {
        **settings.model_dump(include={"run", "mixture", "model", "seed"}),
        **counts,
        "train_pairs": data.pairs,
        "steps": totals.step,
        "exported_step": step,
        "continued": trainer.continued,
        "pairs": totals.pairs,
        "tokens": totals.tokens,
        "seconds": round(totals.seconds, 2),
        "tokens_per_second": round(totals.tokens / max(totals.seconds, 1e-9), 1),
        "final": final,
        "training": settings.training.as_json(),
        "batching": trainer.wrapped.batching,
        "attention": trainer.wrapped.attention,
        "tokenization": manifest,
        "data": splits,
        "world_size": trainer.world,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "key": key,
        "versions": versions.versions(),
        "git": versions.git_state(Path(__file__).parent),
        "hardware": versions.hardware(),
    }
