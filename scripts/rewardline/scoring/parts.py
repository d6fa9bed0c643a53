"""Finished parts of a scoring job, on disk: after a kill they are not computed again. Needs no torch."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rewardline.core.artifacts import read_manifest, verify_model
from rewardline.core.errors import UserError
from rewardline.core.files import atomic_file
from rewardline.core.hashing import file_sha256

log = logging.getLogger(__name__)
T = TypeVar("T")
WINDOW, WINDOW_BATCHES = 2048, 16
"""Most comparisons, and most batches full of tokens, that are sorted by length together."""


class FinishedParts:
    """The results of finished parts, a file each, in a folder named by the key of all that they depend on.

    A file ends with a SHA-256 of the key, the part's number and its content.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder / key

    def load(self, number: int) -> bytes | None:
        """The content of a part; None if it is not finished, or damaged."""
        path = self.path(number)
        if not path.exists():
            return None
        content = path.read_bytes()
        if content[-32:] != self._checksum(number, content[:-32]):
            log.warning("%s is damaged; its part is scored again", path)
            return None
        return content[:-32]

    def save(self, number: int, content: bytes) -> None:
        """Keep the content of a finished part."""
        with atomic_file(self.path(number)) as partial:
            partial.write_bytes(content + self._checksum(number, content))

    def delete_others(self, *keys: str) -> None:
        """Delete the parts of other keys than this one and `keys`."""
        kept = {self._folder, *(self._folder.with_name(key) for key in keys)}
        for folder in {path.parent for path in self._folder.parent.glob("*/*.scores")} - kept:
            shutil.rmtree(folder, ignore_errors=True)  # another job may do so too

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self._folder / f"{number:06d}.scores"

    def _checksum(self, number: int, content: bytes) -> bytes:
        return hashlib.sha256(self._folder.name.encode() + number.to_bytes(8) + content).digest()


def windows(items: Iterable[T], tokens: Callable[[T], int], batch_tokens: int) -> Iterator[list[T]]:
    """The items, of so many `tokens`, whose texts are sorted by length together.

    The same for the same items and `batch_tokens`, whichever of them a job computes.
    """
    window: list[T] = []
    size = 0
    for item in items:
        more = tokens(item)
        if len(window) == WINDOW or (window and size + more > WINDOW_BATCHES * batch_tokens):
            yield window
            window, size = [], 0
        window.append(item)
        size += more
    if window:
        yield window


def share_of(total: int, number: int, count: int) -> range:
    """Which of `total` parts in order job `number` (from 0) of `count` computes; all jobs together compute all."""
    return range(total * number // count, total * (number + 1) // count)


def verified_weights(model: Path) -> str:
    """The SHA-256 of the weights of a trained model, after all its files are verified.

    Raises:
        UserError: a file is missing or damaged, the weights are not those that were trained, or there are none.
    """
    run = read_manifest(model / "run.json")
    if isinstance(run, dict) and run.get("diverged"):
        raise UserError(f"{model} has no weights, as its training has diverged ({run['diverged']}); name another run")
    weights = run.get("weights_sha256") if isinstance(run, dict) else None
    if not isinstance(weights, str):
        raise UserError(f"{model}/run.json does not hold a training run: 'weights_sha256' is missing; train it again")
    if not verify_model(model) and file_sha256(model / "model.safetensors") != weights:
        raise UserError(f"{model}/model.safetensors is not what was trained; delete {model} and run again")
    return weights
