"""Checkpoints of a training: whole or not there, checked when read, loadable by any number of processes and ZeRO stage.

A checkpoint is a folder of safetensors files, written by all processes at once, that hold runs of elements of the fp32
weights and Adam's moments (the idea of a universal checkpoint: Lian et al. 2024, arXiv 2406.18820), and `state.json`
with the rest, every file's size and hash, and a hash of its own. The newest two are kept; damaged ones do not count.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rewardline.core.errors import UserError
from rewardline.core.files import read_json, write_json
from rewardline.core.hashing import canonical, digest, file_sha256
from rewardline.training import optimizer_state
from rewardline.training.optimizer_state import Fragment

log = logging.getLogger(__name__)

Json = dict[str, Any]
KEPT = 2
FILE_BYTES = 2**30
"""About how large a file gets; a process holds this much in memory while it saves."""
_PREFIX = "step-"
_FACTS = "state.json"


class DamagedError(Exception):
    """A checkpoint, or a file of one, is not what was saved."""


def save(engine: Any, folder: Path, step: int, state: Json) -> bool:
    """Save the engine and `state` (JSON) after optimiser step `step`; every process must call it.

    Where a file cannot be written, as on a full disk, the log says so, what stood there before stays, and the result
    is False.
    """
    unfinished = folder / f".{_PREFIX}{step:08d}.partial"
    target = folder / f"{_PREFIX}{step:08d}"

    def begin() -> None:
        for leftover in folder.glob(f".{_PREFIX}*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir(parents=True)

    def write() -> Json:
        parts = optimizer_state.fragments(engine)
        if engine.zero_optimization_stage() == 0:  # every process has all: they share the work
            parts = parts[_rank() :: _world()]
        return _write(unfinished, parts)

    def end() -> None:
        facts = {"step": step, "processes": _world(), "zero_stage": engine.zero_optimization_stage()}
        facts |= {"state": state, "counters": counters, "files": {k: v for part in written for k, v in part.items()}}
        write_json(unfinished / _FACTS, {**facts, "hash": digest(canonical(facts))})
        shutil.rmtree(target, ignore_errors=True)
        unfinished.replace(target)
        for old in steps(folder)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    try:
        together(begin if _rank() == 0 else None)
        written = together(write)
        counters = optimizer_state.counters(engine)
        together(end if _rank() == 0 else None)
    except OSError as error:
        if _rank() == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
        kept = steps(folder)
        log.warning(
            "no checkpoint could be saved after step %d (%s); training goes on, and %s", step, error,
            f"the newest checkpoint is that of step {_step_of(kept[-1])}" if kept else "there is no checkpoint yet",
        )  # fmt: skip
        return False
    return True


def steps(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def states(folder: Path) -> Iterator[Json]:
    """The `state` of every complete checkpoint whose description can be read."""
    for path in steps(folder):
        try:
            yield _facts(path)["state"]
        except DamagedError:
            continue


def restore(engine: Any, folder: Path) -> Json | None:
    """Load the newest checkpoint that is whole into the engine; every process must call it.

    Returns its `state`, or None where there is no checkpoint.

    Raises:
        UserError: there are checkpoints, but none is whole.
        OSError: a file cannot be read, for a reason other than damage.
    """
    found = together(lambda: steps(folder))[0]
    damaged: list[Path] = []
    for path in reversed(found):
        try:
            facts = together(partial(_check, path))[0]
            together(partial(_load, engine, path, facts))
        except DamagedError as error:
            log.warning("checkpoint %s cannot be read (%s); trying the one before", path, error)
            damaged.append(path)
            continue
        if _rank() == 0:
            for other in damaged:  # else they would count among those that are kept
                shutil.rmtree(other, ignore_errors=True)
        optimizer_state.apply_state(engine, facts["counters"])
        state: Json = facts["state"]
        log.info("continuing after step %d from %s", facts["step"], path)
        saved_by = (facts["processes"], facts["zero_stage"])
        if saved_by != (_world(), engine.zero_optimization_stage()):
            log.info("it was saved by %d process(es) with ZeRO %d; results agree up to rounding", *saved_by)
        return state
    if found:
        raise UserError(f"no checkpoint in {folder} can be read; delete the folder to start again")
    return None


def together(action: Callable[[], Any] | None) -> list[Any]:
    """Run `action` on every process (None: nothing), wait for all, and return what each returned.

    Raises:
        DamagedError, OSError: it failed so on some process; then on all of them.
    """
    outcome: tuple[str, Any] = ("done", None)
    try:
        outcome = ("done", action() if action is not None else None)
    except DamagedError as error:
        outcome = ("damaged", str(error))
    except OSError as error:
        outcome = ("failed", error.strerror or str(error))
    outcomes: list[Any] = [outcome]
    if _world() > 1:
        outcomes = [None] * _world()
        dist.all_gather_object(outcomes, outcome)
    for kind, value in outcomes:
        if kind == "damaged":
            raise DamagedError(value)
        if kind == "failed":
            raise OSError(value)
    return [value for _, value in outcomes]


def agreed(action: Callable[[], bool]) -> bool:
    """Whether `action` is true on every process; every process must call it."""
    return all(together(action))


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _write(folder: Path, parts: list[Fragment]) -> Json:
    """Write fragments to files of this process; returns each file's size in bytes and hash."""
    files: Json = {}
    waiting: dict[str, Tensor] = {}

    def flush() -> None:
        path = folder / f"process-{_rank():04d}-{len(files):04d}.safetensors"
        try:
            save_file(waiting, path)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        files[path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        waiting.clear()

    for part in parts:
        for kind, tensor in part.tensors.items():
            waiting[f"{kind}:{part.start}:{part.name}"] = tensor.detach().cpu().clone()
        if sum(tensor.nbytes for tensor in waiting.values()) >= FILE_BYTES:
            flush()
    if waiting:
        flush()
    return files


def _facts(path: Path) -> Json:
    """The checkpoint's description."""
    try:
        facts: Json = read_json(path / _FACTS)
        expected = facts.pop("hash")
    except (UserError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{_FACTS} is missing or damaged") from error
    if digest(canonical(facts)) != expected:
        raise DamagedError(f"{_FACTS} has another content than was saved")
    return facts


def _check(path: Path) -> Json:
    """The checkpoint's description. Its files are checked by all processes, a share each."""
    facts = _facts(path)
    for name, expected in sorted(facts["files"].items())[_rank() :: _world()]:
        file = path / name
        if not file.is_file():
            raise DamagedError(f"{name} is missing")
        if file.stat().st_size != expected["bytes"]:
            raise DamagedError(f"{name} has {file.stat().st_size} bytes instead of {expected['bytes']}")
        if file_sha256(file) != expected["sha256"]:
            raise DamagedError(f"{name} has another content than was saved")
    return facts


def _load(engine: Any, path: Path, facts: Json) -> None:
    """Copy into this process's fragments what overlaps them, whoever saved it; only that is read."""
    wanted: dict[str, list[Fragment]] = {}
    missing = 0
    for part in optimizer_state.fragments(engine):
        wanted.setdefault(part.name, []).append(part)
        missing += part.elements * len(part.tensors)
    for name in sorted(facts["files"]):
        with safe_open(path / name, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dictionary
                kind, start, parameter = key.split(":", 2)
                saved = file.get_slice(key)
                begin, end = int(start), int(start) + saved.get_shape()[0]
                for part in wanted.get(parameter, []):
                    low, high = max(begin, part.start), min(end, part.start + part.elements)
                    if low < high:
                        with torch.no_grad():
                            part.tensors[kind][low - part.start : high - part.start].copy_(
                                saved[low - begin : high - begin]
                            )
                        missing -= high - low
    if missing:
        raise DamagedError(f"{missing} elements are missing")
