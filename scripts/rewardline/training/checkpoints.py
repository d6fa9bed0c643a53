"""Checkpoints of a training run: complete or absent, checked when read, loadable by any number of processes.

A checkpoint is a folder of safetensors files, written by all processes at once, with fragments of the fp32 weights and
of Adam's moments (the idea of a universal checkpoint: Lian et al. 2024, arXiv 2406.18820), and `state.json` with the
rest, every file's hash, and a hash of its own. The newest two are kept; damaged ones do not count.

By hand, as DeepSpeed's own and torch.distributed.checkpoint pickle what they save, have no hashes, and need a
conversion for another number of processes or another ZeRO stage; a resumed run here is bit-equal to one that was not
interrupted.
"""

import logging
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from deepspeed import DeepSpeedEngine
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rewardline.core.errors import UserError
from rewardline.core.files import read_json, write_json
from rewardline.core.hashing import canonical, digest, file_sha256
from rewardline.core.runtime import rank, world_size
from rewardline.core.settings import JsonObject
from rewardline.training import optimizer_state
from rewardline.training.optimizer_state import Counters, Fragment
from rewardline.training.processes.collectives import run_on_all, run_on_first

log = logging.getLogger(__name__)

KEPT = 2
FILE_BYTES = 2**30
"""About how large a file gets; a process holds this much in memory while it saves."""
_PREFIX = "step-"
_FACTS = "state.json"


class DamagedError(Exception):
    """A checkpoint, or one of its files, differs from what was saved."""


class CheckpointFacts(BaseModel):
    """The content of state.json: `state` is the caller's, `files` the SHA-256 of each file, `hash` that of the rest."""

    step: int
    processes: int
    zero_stage: int
    state: JsonObject
    counters: Counters
    files: dict[str, str]
    hash: str = ""

    def content_hash(self) -> str:
        """What `hash` must be."""
        return digest(canonical(self.model_dump(mode="json", exclude={"hash"})))


def save(engine: DeepSpeedEngine, folder: Path, step: int, state: JsonObject) -> bool:
    """Save the engine and `state` after optimizer step `step`; every process must call it.

    Returns whether that succeeded. If a file cannot be written, as on a full disk, that is logged, and earlier
    checkpoints stay.
    """
    unfinished = folder / f".{_PREFIX}{step:08d}.partial"
    target = folder / f"{_PREFIX}{step:08d}"

    def begin() -> None:
        for leftover in folder.glob(f".{_PREFIX}*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir(parents=True)

    def write() -> dict[str, str]:
        parts = optimizer_state.fragments(engine)
        if engine.zero_optimization_stage() == 0:  # every process has all: they share the work
            parts = parts[rank() :: world_size()]
        return _write(unfinished, parts)

    def end() -> None:
        facts = CheckpointFacts(
            step=step,
            processes=world_size(),
            zero_stage=engine.zero_optimization_stage(),
            state=state,
            counters=counters,
            files={name: sha256 for files in written for name, sha256 in files.items()},
        )
        facts.hash = facts.content_hash()
        write_json(unfinished / _FACTS, facts.model_dump(mode="json"))
        shutil.rmtree(target, ignore_errors=True)
        unfinished.replace(target)
        for old in steps(folder)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    try:
        run_on_first(begin)
        written = run_on_all(write)
        counters = optimizer_state.counters(engine)
        run_on_first(end)
    except OSError as error:
        if rank() == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
        newest = [int(path.name.removeprefix(_PREFIX)) for path in steps(folder)[-1:]]
        log.warning(
            "no checkpoint could be saved after step %d (%s); training continues, and %s", step, error,
            f"the newest checkpoint is that of step {newest[0]}" if newest else "there is no checkpoint yet",
        )  # fmt: skip
        return False
    return True


def steps(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def states(folder: Path) -> Iterator[JsonObject]:
    """The `state` of every complete checkpoint whose facts can be read."""
    for path in steps(folder):
        try:
            yield _facts(path).state
        except DamagedError:
            continue


def restore(engine: DeepSpeedEngine, folder: Path, last: int | None = None) -> JsonObject | None:
    """Load the newest undamaged checkpoint into the engine; every process must call it.

    Those of steps after `last` are deleted: training from an earlier one makes them again. Returns the `state` of the
    one loaded, or None where there is no checkpoint.

    Raises:
        UserError: there are checkpoints, but all are damaged.
        OSError: a file cannot be read, for a reason other than damage.
    """

    def until_last() -> list[Path]:
        for path in steps(folder):
            if last is not None and int(path.name.removeprefix(_PREFIX)) > last:
                shutil.rmtree(path)
        return steps(folder)

    available = run_on_first(until_last)
    damaged: list[Path] = []
    for path in reversed(available):
        try:
            facts = run_on_all(partial(_check, path), DamagedError)[0]
            run_on_all(partial(_load, engine, path, facts), DamagedError)
        except DamagedError as error:
            log.warning("checkpoint %s cannot be read (%s); trying the one before", path, error)
            damaged.append(path)
            continue
        if rank() == 0:
            for older in damaged:  # else they would count among those that are kept
                shutil.rmtree(older, ignore_errors=True)
        optimizer_state.apply_state(engine, facts.counters)
        log.info("continuing after step %d from %s", facts.step, path)
        if (facts.processes, facts.zero_stage) != (world_size(), engine.zero_optimization_stage()):
            log.info(
                "it was saved by %d process(es) with ZeRO %d; results agree up to rounding",
                facts.processes, facts.zero_stage,
            )  # fmt: skip
        return facts.state
    if available:
        raise UserError(f"no checkpoint in {folder} can be read; delete the folder to start again")
    return None


def _write(folder: Path, parts: list[Fragment]) -> dict[str, str]:
    """Write fragments to files of this process; the SHA-256 of each file."""
    files: dict[str, str] = {}
    waiting: dict[str, Tensor] = {}

    def flush() -> None:
        path = folder / f"process-{rank():04d}-{len(files):04d}.safetensors"
        try:
            save_file(waiting, path)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        files[path.name] = file_sha256(path)
        waiting.clear()

    for part in parts:
        for kind, tensor in part.tensors.items():
            waiting[f"{kind}:{part.start}:{part.name}"] = tensor.detach().cpu().clone()
        if sum(tensor.nbytes for tensor in waiting.values()) >= FILE_BYTES:
            flush()
    if waiting:
        flush()
    return files


def _facts(path: Path) -> CheckpointFacts:
    """The facts of a checkpoint."""
    try:
        facts = CheckpointFacts.model_validate(read_json(path / _FACTS))
    except (UserError, ValidationError) as error:
        raise DamagedError(f"{_FACTS} is missing or damaged") from error
    if facts.hash != facts.content_hash():
        raise DamagedError(f"{_FACTS} has changed since it was saved")
    return facts


def _check(path: Path) -> CheckpointFacts:
    """The facts of a checkpoint, whose files are checked by all processes, a share each."""
    facts = _facts(path)
    for name, expected in sorted(facts.files.items())[rank() :: world_size()]:
        if not (path / name).is_file():
            raise DamagedError(f"{name} is missing")
        if file_sha256(path / name) != expected:
            raise DamagedError(f"{name} has changed since it was saved")
    return facts


def _load(engine: DeepSpeedEngine, path: Path, facts: CheckpointFacts) -> None:
    """Copy what overlaps into this process's fragments, whoever saved it; only that is read."""
    needed: dict[str, list[Fragment]] = {}
    missing = 0
    for part in optimizer_state.fragments(engine):
        needed.setdefault(part.name, []).append(part)
        missing += part.elements * len(part.tensors)
    for name in sorted(facts.files):
        with safe_open(path / name, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dictionary
                kind, start, parameter = key.split(":", 2)
                saved = file.get_slice(key)
                begin, end = int(start), int(start) + saved.get_shape()[0]
                for part in needed.get(parameter, []):
                    low, high = max(begin, part.start), min(end, part.start + part.elements)
                    if low < high:
                        with torch.no_grad():
                            part.tensors[kind][low - part.start : high - part.start].copy_(
                                saved[low - begin : high - begin]
                            )
                        missing -= high - low
    if missing:
        raise DamagedError(f"{missing} elements are missing")
