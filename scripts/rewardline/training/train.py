"""A training run in one process: from the base model to the exported reward model."""

import logging
import os
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from transformers.integrations import HfDeepSpeedConfig

from rewardline.core import versions
from rewardline.core.artifacts import MANIFEST, write_sealed
from rewardline.core.errors import UserError
from rewardline.core.files import apply_umask
from rewardline.core.hashing import file_sha256
from rewardline.core.runtime import rank, world_size
from rewardline.model import determinism
from rewardline.model.loading import runs_in_transformers_4
from rewardline.model.packing import flex
from rewardline.model.processes import local_device, start_processes
from rewardline.model.reward_model import RewardModel
from rewardline.tokens.base_manifest import BaseManifest
from rewardline.tokens.store import TokenDataset
from rewardline.tokens.tokenizer import set_end_token
from rewardline.training import engine, held_out
from rewardline.training.batching import MicroBatchLoader
from rewardline.training.export import export_model, take_best_weights
from rewardline.training.halving import check_first
from rewardline.training.loop import TrainingDivergedError, TrainingLoop
from rewardline.training.loss import Targets, targets_of
from rewardline.training.records import loggers
from rewardline.training.records.log_file import read_unfinished_log
from rewardline.training.records.run_facts import RunFacts
from rewardline.training.records.throughput import peak_flops, utilization
from rewardline.training.reuse import TrainingJob
from rewardline.training.settings import EVAL, TrainingSettings
from rewardline.training.step import OptimizerStep, build_model

log = logging.getLogger(__name__)


def train(job: TrainingJob) -> None:
    """Train, and export the model with its run.json to the job's `folder / "model"`; to a rung, write its result.

    A cell of a sweep whose training diverges leaves that instead, so that the others continue: a rung's result that
    says it, or a model without weights. Every process of the training run calls it.

    Raises:
        UserError: something that the user can fix, such as a base model that cannot be loaded.
    """
    settings, folder, training = job.settings, job.folder, job.settings.training
    start_processes()
    device = local_device()
    _check_device(training, device)
    determinism.start(training.deterministic, device)
    config = engine.deepspeed_config(training)
    data, eval_data = TokenDataset(job.tokens, "train", settings.fraction), TokenDataset(job.tokens, "eval")
    targets = check_examples(training, data, settings.mixture)
    examples = data if targets is None or targets.pair_weight else data.without_pairs()
    max_length = data.manifest.max_length
    # Transformers loads weights straight into the partitions of ZeRO-3 while such an object is alive.
    partitioned = HfDeepSpeedConfig(config) if training.zero_stage == 3 else None
    model, tokenizer = build_model(settings, job.base, max_length, targets)
    check_objective(model, training, max_length=max_length, eval_pairs=eval_data.pairs + eval_data.answers)
    running = engine.create(model, training, config)
    if training.zero_stage == 3:  # before, each process had only a part of the weights
        model.check_scores(running)
    pad_id = int(tokenizer.pad_token_id)
    peak = peak_flops(device, training.precision)
    loader = MicroBatchLoader(model, training, examples, pad_id, device, objective=True, targets=targets)
    sets = {EVAL: eval_data, **{name: TokenDataset(path, "eval") for name, path in job.eval_tokens.items()}}
    eval_loaders = {
        name: MicroBatchLoader(model, training, one, pad_id, device, objective=False, targets=targets)
        for name, one in sets.items()
    }
    eval_loader = eval_loaders[EVAL]
    with_pairs = {
        name: one for name, one in eval_loaders.items() if one.data.pairs or (targets is not None and one.data.answers)
    }
    step = OptimizerStep(running, settings, loader)
    loop = TrainingLoop(settings, model, running, step, with_pairs, folder, job.tracked, job.until)
    if settings.rung and settings.rung.number == 0 and settings.fraction == 1:  # small fractions may end before
        check_first(settings.rung.step, loop.total_steps)
    log.info(
        "%s: %d pairs%s in %d comparisons, %d steps, %s batches, %s attention, %s, ZeRO %d, %d process(es) "
        "of %d thread(s) on %s",
        settings.run, data.pairs, f" and {data.answers} rated answers" if data.answers else "", len(data),
        loop.total_steps, model.batching, model.attention,
        training.precision, training.zero_stage, world_size(), training.threads, device,
    )  # fmt: skip
    cores, used = len(os.sched_getaffinity(0)), world_size() * training.threads
    if device.type == "cpu" and used < cores:
        log.info(
            "computes with %d of %d cores; the run's training.threads sets how many, and changes the last bits",
            used,
            cores,
        )
    if step.length_control:
        coefficient = step.length_control.coefficient
        log.info("length_control: log odds of a label are %.3f times the log ratio of lengths", coefficient)
    diverged = None
    try:
        loop.run()
    except TrainingDivergedError as error:
        if settings.sweep is None:
            raise
        log.warning("%s", error)
        diverged = error.reason
        loop.close()
    if settings.rung is not None and diverged is not None:
        if rank() == 0:
            job.write_result(diverged=diverged)
        _end()
        return
    if compilations := flex.compilations():
        log.info("kernels were compiled %d time(s)", compilations)
    if settings.rung is not None:
        sums = held_out.evaluate(running, eval_loader, held_out.choosing(eval_data, settings.rung.share))
        if not sums.pairs:
            raise UserError("grid.halving: the eval split has no pairs to choose by; raise the mixture's eval_fraction")
        if rank() == 0:
            job.write_result(int(sums.pairs), sums.correct / sums.pairs)
        _end()
        return
    work = loop.work.total()
    exported_step, normalization, weights = loop.state.step, None, None
    if diverged is None:
        exported_step = take_best_weights(model, loop.state.selection, folder, training, loop.state.step)
        if training.objective is not None and training.objective.weights == "fit":
            fitting = MicroBatchLoader(model, training, data, pad_id, device, objective=False, targets=targets)
            pairs = np.flatnonzero(data.pair_counts)
            enough = int((data.pair_counts[pairs].cumsum() < held_out.FIT_PAIRS).sum()) + 1
            model.set_weights(held_out.fit_weights(running, fitting, pairs[:enough].tolist()))
            log.info("weights of the attributes: %s", {each["name"]: each["weight"] for each in model.attributes})
        normalization = held_out.score_moments(running, eval_loader) if training.normalize else None
        weights = engine.full_state(model.model)
    del partitioned
    if rank() == 0:
        partial = folder / ".model.partial"
        shutil.rmtree(partial, ignore_errors=True)
        set_end_token(tokenizer, data.manifest.end_token)
        tokenizer.chat_template = data.manifest.chat_template
        tokenizer.model_max_length = max_length
        stored = None
        if weights is None:
            _leave_no_weights(job.base, partial)
        else:
            stored = export_model(settings, job.base, tokenizer, weights, partial, normalization, model.attributes)
        shutil.copyfile(folder / "log.jsonl", partial / "log.jsonl")
        loggers.keep_curves(folder, partial)
        facts = {
            **_facts(job, model, data, loop, exported_step),
            "diverged": diverged,
            **utilization(model, work, loop.state.tokens, max(loop.state.seconds, 1e-9), peak),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
            "normalization": stored,
            "attributes": [dict(attribute) for attribute in model.attributes],
            "targets": None if targets is None else targets.as_json(),
            "weights_sha256": file_sha256(partial / "model.safetensors"),
        }
        files = [path.relative_to(partial).as_posix() for path in sorted(partial.rglob("*")) if path.is_file()]
        write_sealed(partial / "run.json", RunFacts.model_validate(facts).as_json(), files)
        apply_umask(partial)
        partial.replace(folder / "model")
    _end()


def _leave_no_weights(base: Path, folder: Path) -> None:
    """The files of a model without a tensor, which nothing loads by mistake."""
    folder.mkdir()
    shutil.copyfile(base / "config.json", folder / "config.json")
    save_file({}, folder / "model.safetensors", {"format": "pt"})


def _end() -> None:
    if world_size() > 1:
        dist.barrier()
    dist.destroy_process_group()


def _check_device(training: TrainingSettings, device: torch.device) -> None:
    if device.type == "cpu":
        if training.precision == "fp16":
            raise UserError("training.precision: fp16 needs a GPU; use fp32 or bf16")
        if training.attention in ("flex", "varlen"):
            raise UserError(f"training.attention: {training.attention} needs a GPU; use auto or sdpa")
    if training.attention == "varlen" and training.precision == "fp32":
        raise UserError("training.attention: varlen needs precision bf16 or fp16; use auto or flex")


def check_examples(training: TrainingSettings, data: TokenDataset, mixture: str) -> Targets | None:
    """The targets of the objective; None without one. Nothing of the mixture may be left unused.

    Raises:
        UserError: there are single answers and no objective, or ratings that do not fit it, or no pairs to fit on, or
            none with a weight.
    """
    objective = training.objective
    weightless = data.pairs_without_preference() if training.margin == "scale" else 0
    if weightless and weightless == data.pairs:
        raise UserError(
            f"training.margin: no pair of {mixture} has a margin above 0 for scale to multiply its loss by; correct "
            "the margins of its datasets, or set margin: false"
        )
    if weightless:
        log.warning(
            "margin: scale multiplies the loss of a pair by its margin: %s of %s training pairs have a margin of 0 or"
            " below, and no weight",
            f"{weightless:,}",
            f"{data.pairs:,}",
        )
    if objective is None:
        if data.answers:
            raise UserError(
                f"{mixture} has {data.answers:,} single answers with ratings, which only an objective trains on: set "
                "training.objective, as {type: binary}, or leave their datasets out of the mixture"
            )
        return None
    if objective.weights == "fit" and not data.pairs:
        raise UserError(
            f"training.objective.weights: {mixture} has no pairs to fit weights on; give them, or add pairs"
        )
    ratings = data.ratings()
    targets = targets_of(objective, ratings, mixture)
    if others := sorted(ratings.keys() - set(targets.names)):
        log.warning("the objective leaves out the ratings %s", ", ".join(others))
    return targets


def check_objective(model: RewardModel, training: TrainingSettings, *, max_length: int, eval_pairs: int) -> None:
    """Check that model and data fit the objective, before anything is computed.

    Raises:
        UserError: an encoder under a per-token loss, no eval split to normalize by, or no position left for padding.
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


def _facts(
    job: TrainingJob, model: RewardModel, data: TokenDataset, loop: TrainingLoop, exported_step: int
) -> dict[str, object]:
    """The fields of `RunFacts` on inputs and results; `final` has the last values up to the exported step."""
    state, settings, tokenization = loop.state, job.settings, data.manifest.as_json()
    final: dict[str, float] = {}
    for line in read_unfinished_log(job.folder / "log.jsonl"):
        if line.step <= exported_step:
            values = asdict(line)
            sets = values.pop("eval_sets", {})
            final |= {n: v for n, v in values.items() if v is not None and (n.startswith("eval_") or n == "loss")}
            final |= {f"eval/{name}/{n}": value for name, figures in sets.items() for n, value in figures.items()}
    return {
        **settings.model_dump(include={"run", "sweep", "mixture", "model", "seed", "fraction"}),
        "training": settings.training,
        "key": job.key,
        "tracker_id": job.tracked.identity,
        "parameters": sum(map(engine.elements, model.parameters())),
        "trained_parameters": sum(engine.elements(p) for p in model.parameters() if p.requires_grad),
        "train_pairs": data.pairs,
        "train_answers": data.answers,
        "batching": model.batching,
        "attention": model.attention,
        "data": tokenization.pop("splits"),
        "tokenization": tokenization,
        "base": BaseManifest.read(job.base / MANIFEST).as_json()["files"],
        "world_size": world_size(),
        "threads": torch.get_num_threads(),
        "versions": versions.versions(),
        "transformers_4": runs_in_transformers_4(model.model),
        "git": versions.git_state(Path(__file__).parent),
        "hardware": versions.hardware(list(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))),
        "steps": state.step,
        "exported_step": exported_step,
        "eliminated_at": job.eliminated_at,
        "continued": state.continued,
        "pairs": state.pairs,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 2),
        "tokens_per_second": round(state.tokens / max(state.seconds, 1e-9), 1),
        "final": final,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
