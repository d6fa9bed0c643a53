"""Checkpoints of a training: whole or not there, the newest two kept, in a folder keyed by what they depend on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewardline.artifacts import read_json, write_json
from rewardline.cli import UserError, log

KEPT = 2
_PREFIX = "step-"
_TAG = "state"
_FACTS = "rewardline.json"


def save(
    engine: Any,
    folder: Path,
    step: int,
    state: dict[str, Any],
    is_first: bool,
    processes: int,
    barrier: Callable[[], None],
) -> None:
    """Save the engine and `state` (JSON-like) after optimiser step `step`; every process must call it."""
    partial = folder / f".{_PREFIX}{step:08d}.partial"
    if is_first:
        shutil.rmtree(partial, ignore_errors=True)
    barrier()
    engine.save_checkpoint(str(partial), tag=_TAG, client_state={"rewardline": {**state, "step": step}})
    barrier()
    if is_first:
        write_json(partial / _FACTS, {"step": step, "processes": processes})
        target = folder / f"{_PREFIX}{step:08d}"
        shutil.rmtree(target, ignore_errors=True)  # one that could not be read stands there still
        partial.replace(target)
        for old in steps(folder)[:-KEPT]:
            shutil.rmtree(old)
    barrier()


def steps(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def restore(engine: Any, folder: Path, processes: int) -> dict[str, Any] | None:
    """Load the newest checkpoint that is readable into the engine, of one process of `processes`.

    Returns its `state`, or None where there is no checkpoint.

    Raises:
        UserError: there are checkpoints, but none is readable, or they are of another number of processes.
    """
    for path in reversed(steps(folder)):
        saved_by = read_json(path / _FACTS)["processes"]
        if saved_by != processes and engine.zero_optimization_stage() > 0:
            raise UserError(
                f"{path} was saved by {saved_by} processes with ZeRO {engine.zero_optimization_stage()}, and this are "
                f"{processes}; go on with {saved_by}, or delete {folder} to start again"
            )
        try:
            loaded, client_state = engine.load_checkpoint(str(path), tag=_TAG)
        except MemoryError:
            raise
        except Exception as error:  # a damaged file can fail in any way; the one before is tried then
            log.warning("checkpoint %s cannot be read (%s); trying the one before", path, error)
            continue
        if loaded is not None:
            state: dict[str, Any] = client_state["rewardline"]
            log.info("continuing after step %d from %s", state["step"], path)
            return state
    if steps(folder):
        raise UserError(f"no checkpoint in {folder} can be read; delete the folder to start again")
    return None
