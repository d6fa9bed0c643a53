"""The scores of a benchmark's pairs, computed part by part in bounded memory; finished parts are not scored again."""

import hashlib
import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np

from rewardline.core.artifacts import artifact_key
from rewardline.core.errors import UserError
from rewardline.core.files import atomic_file
from rewardline.core.gpus import gpu_names
from rewardline.core.hashing import file_sha256
from rewardline.core.progress import progress
from rewardline.data.parquet import read_rows
from rewardline.data.schema import AnswerPosition
from rewardline.evaluation.scores import ScoredPair
from rewardline.evaluation.settings import ScoringSettings
from rewardline.tokens.store import Comparison, TokenDataset

if TYPE_CHECKING:
    from rewardline.scoring.batch_scorer import Scores

log = logging.getLogger(__name__)


class Origin(TypedDict, total=False):
    """Where a pair comes from, which only the pairs on disk hold, as no training depends on it."""

    chosen_source: str | None
    rejected_source: str | None
    file: str
    row: int
    place: AnswerPosition | None


class ScoreParts:
    """The scores of finished parts, a file each, in a folder named by the key of all that they depend on.

    A part is some consecutive comparisons. Its file holds the float32 scores of all their answers, and a SHA-256 of the
    key, the part's number and the scores.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder / key

    def load(self, number: int) -> "Scores | None":
        """The scores of a part; None if it is not finished, or damaged."""
        path = self._path(number)
        if not path.exists():
            return None
        content = path.read_bytes()
        if content[-32:] != self._checksum(number, content[:-32]):
            log.warning("%s is damaged; its part is scored again", path)
            return None
        return np.frombuffer(content[:-32], dtype="<f4")

    def save(self, number: int, scores: "Scores") -> None:
        """Keep the scores of a finished part."""
        values = scores.astype("<f4").tobytes()
        with atomic_file(self._path(number)) as partial:
            partial.write_bytes(values + self._checksum(number, values))

    def delete_others(self) -> None:
        """Delete the parts of other keys."""
        for folder in {path.parent for path in self._folder.parent.glob("*/*.scores")} - {self._folder}:
            shutil.rmtree(folder)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.scores"

    def _checksum(self, number: int, values: bytes) -> bytes:
        return hashlib.sha256(self._folder.name.encode() + number.to_bytes(8) + values).digest()


def scores_key(model: Path, weights: str, tokens: Path, settings: ScoringSettings) -> str:
    """The key of all that scores depend on: weights, tokens, settings and scoring code; torch is not imported."""
    files = {"config": model / "config.json", "tokens": tokens / "manifest.json"}
    if settings.trust_remote_code:
        files |= {path.name: path for path in model.glob("*.py")}
    return artifact_key(
        settings,
        {"weights": weights, **{name: file_sha256(path) for name, path in files.items()}},
        Path(__file__).parents[1] / "scoring" / "batch_scorer.py",
        packages=("torch", "transformers", "numpy"),
    )


def scored_comparisons(
    model: Path,
    weights: str,
    tokens: Path,
    shards: Path,
    *,
    batch_tokens: int,
    trust_remote_code: bool,
    threads: int,
    label: str,
) -> "Iterator[tuple[Comparison, Scores]]":
    """Each comparison of the tokens' eval split, in their order, with the float32 [K] scores of its answers.

    `weights`: the SHA-256 of the model's weights; `threads`: those that torch has. `shards`: a folder for the
    scores of finished parts, which are not computed again under the same key: after a kill the same call resumes, and
    torch is imported only if parts are missing.

    Raises:
        UserError: there are no pairs, the model cannot be loaded or gives no finite score.
    """
    data = TokenDataset(tokens, "eval")
    if not data.pairs:
        raise UserError(f"{tokens} has no pairs to evaluate; its benchmark or eval split is empty")
    settings = ScoringSettings(
        batch_tokens=batch_tokens,
        trust_remote_code=trust_remote_code,
        threads=threads,
        device="cuda" if gpu_names() else "cpu",
    )
    parts = ScoreParts(shards, scores_key(model, weights, tokens, settings))
    with progress(label, total=data.pairs, unit="pair") as bar:
        for window, scores in _windows(data, parts, model, settings):
            answers = [len(comparison.tails) for comparison in window]
            yield from zip(window, np.split(scores, np.cumsum(answers)[:-1]), strict=True)
            bar.update(sum(len(comparison.pairs) for comparison in window))
    parts.delete_others()


def _windows(
    data: TokenDataset, parts: ScoreParts, model: Path, settings: ScoringSettings
) -> "Iterator[tuple[list[Comparison], Scores]]":
    """The comparisons of each part, and the scores of all their answers."""
    ends = np.cumsum(data.tail_counts)
    index = number = 0
    while index < len(data) and (scores := parts.load(number)) is not None:
        before = ends[index - 1] if index else 0
        end = int(np.searchsorted(ends, before + len(scores))) + 1
        yield [data[k] for k in range(index, end)], scores
        index, number = end, number + 1
    if index == len(data):
        log.info("all %d pairs have scores: nothing that they depend on has changed", data.pairs)
        return
    log.info("%d pairs, %d parts are finished", data.pairs, number)
    from rewardline.scoring.batch_scorer import window_scorer, windows

    score = window_scorer(
        model,
        max_length=data.manifest.max_length,
        batch_tokens=settings.batch_tokens,
        trust_remote_code=settings.trust_remote_code,
    )
    first, rest = number, (data[k] for k in range(index, len(data)))
    for number, window in enumerate(windows(rest, settings.batch_tokens), first):
        part = parts.load(number) if number > first else None
        if part is None:
            part = np.concatenate(score(window))
            parts.save(number, part)
        yield window, part


def scored_pairs(scored: "Iterable[tuple[Comparison, Scores]]", pairs: Path | None) -> Iterator[ScoredPair]:
    """The pairs of scored comparisons, in the order of the tokens.

    `pairs`: the folder of the pairs that were tokenized, in the same order, for their `Origin`. Those that were dropped
    by tokenizing are skipped.

    Raises:
        UserError: a pair of the tokens is missing there.
    """
    origins = None if pairs is None else read_rows(pairs / "eval", ["pair_id", *Origin.__annotations__])
    for number, (comparison, scores) in enumerate(scored):
        lengths = [len(comparison.prefix) + len(tail) for tail in comparison.tails]
        for pair in comparison.pairs:
            chosen, rejected = float(scores[pair.chosen]), float(scores[pair.rejected])
            origin: Origin = {}
            if origins is not None:
                row = next((row for row in origins if row.pop("pair_id") == pair.pair_id), None)
                if row is None:
                    raise UserError(
                        f"{pairs}/eval lacks pair {pair.pair_id} of the tokens; delete {pairs} and run again"
                    )
                origin = cast(Origin, row)
            yield ScoredPair(
                pair_id=pair.pair_id,
                prompt_id=comparison.prompt_id,
                dataset=pair.dataset,
                subset=pair.subset,
                chosen_score=chosen,
                rejected_score=rejected,
                chosen_tokens=lengths[pair.chosen],
                rejected_tokens=lengths[pair.rejected],
                correct=float(chosen > rejected) + 0.5 * (chosen == rejected),
                margin=pair.margin,
                confidence=pair.confidence,
                weight=pair.weight,
                comparison=number,
                chosen_answer=pair.chosen,
                rejected_answer=pair.rejected,
                **origin,
            )
