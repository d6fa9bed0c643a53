"""Checkpoints of a training: whole or not there, the newest two kept, in a folder keyed by what they depend on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewardline.cli import UserError, log

KEPT = 2
_PREFIX = "step-"
_TAG = "state"


def save(
    engine: Any, folder: Path, step: int, state: dict[str, Any], is_first: bool, barrier: Callable[[], None]
) -> None:
    """Save the engine and `state` (JSON-like) after optimiser step `step`; every process must call it."""
    partial = folder / f".{_PREFIX}{step:08d}.partial"
    if is_first:
        shutil.rmtree(partial, ignore_errors=True)
    barrier()
    engine.save_checkpoint(str(partial), tag=_TAG, client_state={"rewardline": {**state, "step": step}})
    barrier()
    if is_first:
        partial.replace(folder / f"{_PREFIX}{step:08d}")
        for old in steps(folder)[:-KEPT]:
            shutil.rmtree(old)
    barrier()


def steps(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def restore(engine: Any, folder: Path) -> dict[str, Any] | None:
    """Load the newest checkpoint that is readable into the engine. Returns its `state`, or None without any.

    Raises:
        UserError: there are checkpoints, but none is readable; they are deleted, so that a new start is clean.
    """
    for path in reversed(steps(folder)):
        try:
            loaded, client_state = engine.load_checkpoint(str(path), tag=_TAG)
        except Exception as error:  # a damaged file can fail in any way; the one before is tried then
            log.warning("checkpoint %s cannot be read (%s); trying the one before", path, error)
            continue
        if loaded is not None:
            state: dict[str, Any] = client_state["rewardline"]
            log.info("continuing after step %d from %s", state["step"], path)
            return state
    if steps(folder):
        discard(folder)
        raise UserError(f"no checkpoint in {folder} could be read; they are deleted: run again to start from step 0")
    return None


def discard(folder: Path) -> None:
    """Delete all checkpoints: the training is complete."""
    for path in (*steps(folder), *folder.glob(f".{_PREFIX}*.partial")):
        shutil.rmtree(path, ignore_errors=True)
