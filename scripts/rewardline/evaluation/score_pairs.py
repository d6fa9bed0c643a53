"""The scores of a benchmark's pairs: streamed, in bounded memory, and kept part by part until all are there."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.errors import UserError
from rewardline.core.files import atomic_file
from rewardline.core.hashing import canonical, digest, file_sha256
from rewardline.core.progress import progress
from rewardline.core.provenance import code_digest
from rewardline.core.runtime import hold_threads
from rewardline.core.versions import versions
from rewardline.evaluation.origins import with_origins
from rewardline.evaluation.scores import SCHEMA, score_rows
from rewardline.tokens.store import Comparison, TokenDataset

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import torch

    from rewardline.scoring.batched import Scores

Json = dict[str, Any]
ROWS_AT_ONCE = 4096


class Parts:
    """Files of finished parts' scores in a folder that one key names: each is there whole, or is computed again.

    A file holds float32 scores and the SHA-256 of its number and of them.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder / key

    def load(self, number: int, answers: Sequence[int]) -> "list[Scores] | None":
        """The scores of a part, one array of each of the numbers of answers; None if it is not there whole."""
        try:
            content = self._path(number).read_bytes()
        except FileNotFoundError:
            return None
        values, found = content[:-32], content[-32:]
        if _seal(number, values) != found or len(values) != 4 * sum(answers):
            log.warning("%s is damaged; its part is scored again", self._path(number))
            return None
        return np.split(np.frombuffer(values, dtype="<f4"), np.cumsum(answers)[:-1])

    def save(self, number: int, scores: "list[Scores]") -> None:
        """Keep a part's scores."""
        values = np.concatenate(scores).astype("<f4").tobytes()
        with atomic_file(self._path(number)) as partial:
            partial.write_bytes(values + _seal(number, values))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.scores"


def _seal(number: int, values: bytes) -> bytes:
    return hashlib.sha256(number.to_bytes(8) + values).digest()


def parts_key(weights: str, model: Path, tokens: Path, options: Json) -> str:
    """A hash of all that scores depend on, and of what makes up a part.

    `weights`: their SHA-256; `options`: where and how they are scored.
    """
    found = versions()
    parts = {
        "weights": weights,
        "config": file_sha256(model / "config.json"),
        "tokens": file_sha256(tokens / "manifest.json"),
        "options": options,
        "code": code_digest(Path(__file__).parents[1] / "scoring" / "batched.py"),
        "versions": {name: found[name] for name in ("torch", "transformers", "numpy")},
    }
    return digest(canonical(parts))


def write_scores(scored: "Iterator[tuple[Comparison, Scores]]", path: Path, pairs: Path | None) -> None:
    """Write a row of `score_table.SCHEMA` for each pair, as they come; `pairs`: what their tokens were made of."""
    rows: Iterator[Json]
    rows = (row for number, (one, scores) in enumerate(scored) for row in score_rows(one, number, scores))
    if pairs is not None:
        rows = with_origins(rows, pairs / "eval")
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=SCHEMA))


def scored_comparisons(
    model: Path, weights: str, tokens: Path, kept: Path, *, batch_tokens: int, trust: bool, label: str
) -> "Iterator[tuple[Comparison, Scores]]":
    """Each comparison of the tokens' eval split, in their order, with the float32 [K] scores of its answers.

    `weights`: the SHA-256 of the model's weights; `kept`: a folder for the scores of finished parts, from which the
    same call goes on after a kill. Remove it when all is done.

    Raises:
        UserError: there are no pairs, the model cannot be loaded or gives no finite score.
    """
    import torch

    from rewardline.scoring.batched import windows

    data = TokenDataset(tokens, "eval")
    if not data.pairs:
        raise UserError(f"{tokens}: has no pairs to evaluate; its benchmark or eval split is empty")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = {"batch_tokens": batch_tokens, "trust_remote_code": trust, "device": device.type}
    parts = Parts(kept, parts_key(weights, model, tokens, options))
    score: Callable[[list[Comparison]], list[Scores]] | None = None
    reused = 0
    with progress(label, total=data.pairs, unit="pair") as bar:
        for number, window in enumerate(windows((data[k] for k in range(len(data))), batch_tokens)):
            scores = parts.load(number, [len(comparison.tails) for comparison in window])
            if scores is not None:
                reused += 1
            else:
                if score is None:
                    log.info("%d pairs of %s, %d finished parts are at hand", data.pairs, tokens, reused)
                    score = _scorer(model, data.manifest.max_length, device, batch_tokens, trust)
                scores = score(window)
                parts.save(number, scores)
            yield from zip(window, scores, strict=True)
            bar.update(sum(len(comparison.pairs) for comparison in window))


def _scorer(
    folder: Path, max_length: int, device: "torch.device", batch_tokens: int, trust: bool
) -> "Callable[[list[Comparison]], list[Scores]]":
    """What scores a window with the model of a folder."""
    from rewardline.model.loading import load_reward_model
    from rewardline.model.reward_model import RewardModel
    from rewardline.scoring.batched import score_window

    hold_threads()
    loaded = load_reward_model(folder, trust_remote_code=trust, dtype="auto")
    model = RewardModel(loaded, max_length=max_length).to(device)
    log.info("%s batches of up to %d tokens, on %s", model.batching, batch_tokens, device)
    pad_id = int(loaded.config.pad_token_id)
    return partial(score_window, model, device=device, pad_id=pad_id, batch_tokens=batch_tokens)
