"""A training run in one process: from the base model to the exported reward model."""

import logging
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.distributed as dist

from rewardline.core import versions
from rewardline.core.errors import UserError
from rewardline.core.files import apply_umask, read_json
from rewardline.core.hashing import file_sha256
from rewardline.core.runtime import rank, world_size
from rewardline.model.reward_model import RewardModel
from rewardline.tokens.store import TokenDataset
from rewardline.training import engine
from rewardline.training.batching import MicroBatchLoader
from rewardline.training.export import export_model, take_best_weights
from rewardline.training.held_out import HeldOutSplit
from rewardline.training.loop import TrainingLoop
from rewardline.training.records.log_file import read_unfinished_log
from rewardline.training.records.run_facts import RunFacts
from rewardline.training.settings import TrainingSettings, TrainSettings
from rewardline.training.step import OptimizerStep, build_model
from rewardline.training.throughput import peak_flops, utilisation

log = logging.getLogger(__name__)


def train(settings: TrainSettings, tokens: Path, base: Path, folder: Path, key: str) -> None:
    """Train, and leave the exported model with its run.json, made under `key`, in `folder/model`.

    Every process of the training run calls it.

    Raises:
        UserError: something that the user can fix, such as a base model that cannot be loaded.
    """
    training = settings.training
    engine.start_processes()
    device = engine.local_device()
    _check_device(training, device)
    config = engine.deepspeed_config(training)
    data, held_out_data = TokenDataset(tokens, "train"), TokenDataset(tokens, "eval")
    max_length = data.manifest.max_length
    with engine.partitioned_loading(config, training.zero_stage):
        model, tokenizer = build_model(settings, base, max_length)
        check_objective(model, training, max_length=max_length, eval_pairs=held_out_data.pairs)
        running = engine.create(model, training, config)
        pad_id = int(tokenizer.pad_token_id)
        peak = peak_flops(device, training.precision)
        loader = MicroBatchLoader(model, training, data, pad_id, device, objective=True)
        eval_loader = MicroBatchLoader(model, training, held_out_data, pad_id, device, objective=False)
        held_out = HeldOutSplit(running, eval_loader)
        loop = TrainingLoop(model, running, settings, OptimizerStep(running, settings, loader), held_out, folder)
        log.info(
            "%s: %d pairs in %d comparisons, %d steps, %s batches, %s attention, %s, ZeRO %d, %d process(es) on %s",
            settings.run, data.pairs, len(data), loop.total_steps, model.batching, model.attention,
            training.precision, training.zero_stage, world_size(), device,
        )  # fmt: skip
        loop.run()
        use = utilisation(model, loop.work(), loop.state.totals.tokens, max(loop.state.totals.seconds, 1e-9), peak)
        step = take_best_weights(model, loop.state.selection, folder, training, loop.state.totals.step)
        normalization = held_out.score_moments() if training.normalize else None
        state = engine.full_state(model.model, training.zero_stage, keep=rank() == 0)
    if rank() == 0:
        partial = folder / ".model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        if data.manifest.chat_template:
            tokenizer.chat_template = data.manifest.chat_template
        stored = export_model(settings, base, tokenizer, state, partial, normalization)
        shutil.copyfile(folder / "log.jsonl", partial / "log.jsonl")
        if (folder / "tensorboard").is_dir():
            shutil.copytree(folder / "tensorboard", partial / "tensorboard")
        facts = {
            **_inputs(settings, model, data, base),
            **_results(loop, step),
            **use,
            "key": key,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
            "normalization": stored,
            "weights_sha256": file_sha256(partial / "model.safetensors"),
        }
        RunFacts.model_validate(facts).write(partial / "run.json")
        apply_umask(partial)
        partial.replace(folder / "model")
    if world_size() > 1:
        dist.barrier()
    dist.destroy_process_group()


def _check_device(training: TrainingSettings, device: torch.device) -> None:
    if device.type == "cpu":
        if training.precision == "fp16":
            raise UserError("training.precision: fp16 needs a GPU; use fp32 or bf16")
        if training.attention == "flex":
            raise UserError("training.attention: flex needs a GPU; use auto or sdpa")


def check_objective(model: RewardModel, training: TrainingSettings, *, max_length: int, eval_pairs: int) -> None:
    """Check that model and data can give what the settings ask for, before anything is computed.

    Raises:
        UserError: an encoder under a per-token loss, no eval split to normalise by, or no position left for padding.
    """
    loss, limit = training.loss, model.max_tokens
    if loss.startswith("per_token") and not model.is_decoder:
        raise UserError(
            f"training.loss: {loss} needs a decoder; {model.model.config.model_type} is an encoder, whose head reads "
            "one position. Use pairwise or kwise"
        )
    if training.normalize and not eval_pairs:
        raise UserError("training.normalize: the eval split has no pairs to take mean and spread from; set it to false")
    if limit is not None and max_length > limit:
        raise UserError(
            f"training.score: {model.score_positions.score} needs a position more than the longest sequence has; set "
            f"the model's max_length (now {max_length}) to {limit} or less"
        )


def _inputs(settings: TrainSettings, model: RewardModel, data: TokenDataset, base: Path) -> dict[str, object]:
    """What `RunFacts` has of what went into a run."""
    tokenization = data.manifest.as_json()
    splits = tokenization.pop("splits")
    return {
        **settings.model_dump(exclude={"training", "trust_remote_code"}),
        "parameters": sum(map(engine.elements, model.parameters())),
        "trained_parameters": sum(engine.elements(p) for p in model.parameters() if p.requires_grad),
        "train_pairs": data.pairs,
        "training": settings.training,
        "batching": model.batching,
        "attention": model.attention,
        "tokenization": tokenization,
        "data": splits,
        "base": read_json(base / "manifest.json")["files"],
        "world_size": world_size(),
        "threads": torch.get_num_threads(),
        "versions": versions.versions(),
        "git": versions.git_state(Path(__file__).parent),
        "hardware": versions.hardware(),
    }


def _results(loop: TrainingLoop, step: int) -> dict[str, object]:
    """What `RunFacts` has of what came out of a run; `final` are the last values up to the exported `step`."""
    totals = loop.state.totals
    final: dict[str, float] = {}
    for line in read_unfinished_log(loop.folder / "log.jsonl"):
        if line.step <= step:
            values = asdict(line).items()
            final |= {name: value for name, value in values if name.startswith("eval_") or name == "loss"}
    return {
        "steps": totals.step,
        "exported_step": step,
        "continued": loop.state.continued,
        "pairs": totals.pairs,
        "tokens": totals.tokens,
        "seconds": round(totals.seconds, 2),
        "tokens_per_second": round(totals.tokens / max(totals.seconds, 1e-9), 1),
        "final": final,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
