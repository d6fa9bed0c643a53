"""The scores of a benchmark's pairs, computed part by part in bounded memory; finished parts are not scored again."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, cast

import numpy as np

from rewardline.core.artifacts import Manifest, artifact_key, damaged, write_sealed
from rewardline.core.errors import UserError
from rewardline.core.gpus import gpu_names
from rewardline.core.hashing import file_sha256
from rewardline.core.progress import progress
from rewardline.data.parquet import read_rows
from rewardline.data.schema import AnswerPosition
from rewardline.evaluation.scores import RatedScore, ScoredPair
from rewardline.scoring.parts import FinishedParts, share_of, windows
from rewardline.scoring.settings import ScoringSettings
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


@dataclass(frozen=True)
class PairScoring:
    """The scoring of the eval split of `tokens` with a model.

    `weights`: the SHA-256 of the model's; `threads`: those that torch has; `processes`: see
    `partitioned.processes_for`. `shards`: a folder for the scores of finished parts, which are not computed again under
    the same key: after a kill the same call resumes, and torch is imported only if parts are missing. A part is the
    comparisons that are sorted by length together.
    """

    model: Path
    weights: str
    tokens: Path
    shards: Path
    batch_tokens: int
    trust_remote_code: bool
    threads: int
    label: str
    processes: int = 0

    def settings(self) -> ScoringSettings:
        """What the scores depend on, beside the model and the tokens."""
        device: Literal["cpu", "cuda"] = "cuda" if gpu_names() else "cpu"
        return ScoringSettings(
            batch_tokens=self.batch_tokens,
            trust_remote_code=self.trust_remote_code,
            threads=self.threads,
            device=device,
        )

    def key(self) -> str:
        """The key of all that the scores depend on: weights, tokens, settings, scoring code; torch is not imported."""
        files = {"config": self.model / "config.json", "tokens": self.tokens / "manifest.json"}
        if self.trust_remote_code:
            files |= {path.name: path for path in self.model.glob("*.py")}
        return artifact_key(
            self.settings(),
            {"weights": self.weights, **{name: file_sha256(path) for name, path in files.items()}},
            Path(__file__).parents[1] / "scoring" / "batch_scorer.py",
            packages=("torch", "transformers", "numpy"),
        )


class ScoredShare(Manifest):
    """The manifest of the parts that one of several jobs has scored: their key, and the batches they were made of."""

    key: str
    batch_tokens: int


def scored_comparisons(job: PairScoring, share: tuple[int, int] = (0, 1)) -> "Iterator[tuple[Comparison, Scores]]":
    """Each comparison of the tokens' eval split, in their order, with the float32 [K] scores of its answers.

    Of a model with A attributes, float32 [K, 1 + A], as by `batch_scorer.score_comparisons`. `share`: only
    the parts of job number `share[0]` (from 0) of `share[1]`, which have the same scores bit for bit.

    Raises:
        UserError: there are no pairs, the model cannot be loaded or gives no finite score.
    """
    data, bounds = _opened(job.tokens, job.batch_tokens)
    parts = FinishedParts(job.shards, job.key())
    own = share_of(len(bounds), *share)
    chosen = [k for number in own for k in bounds[number]]
    score: Callable[[Sequence[Comparison]], list[Scores]] | None = None
    with progress(job.label, total=int(data.example_counts[chosen].sum()), unit="pair") as bar:
        for number in own:
            window = [data[k] for k in bounds[number]]
            scores = _part(parts, number, data, bounds[number])
            if scores is None:
                if score is None:
                    log.info("%d pairs, %d parts are finished", bar.total, number - own.start)
                    score = _scorer(job, data)
                scores = np.concatenate(score(window))
                parts.save(number, scores.astype("<f4").tobytes())
            yield from _split(window, scores)
            bar.update(sum(len(comparison.pairs) + len(comparison.answers) for comparison in window))
        if score is None:
            log.info("all %d pairs have scores: nothing that they depend on has changed", bar.total)
    if share == (0, 1):
        parts.delete_others()


def score_share(job: PairScoring, share: tuple[int, int], output: Path) -> None:
    """Score the parts of one of several jobs, see `scored_comparisons`; `output` then says that they are finished."""
    for _ in scored_comparisons(job, share):
        pass
    write_sealed(output, ScoredShare(key=job.key(), batch_tokens=job.batch_tokens).as_json())


def collected_comparisons(
    tokens: Path, shards: Path, manifests: Sequence[Path]
) -> "Iterator[tuple[Comparison, Scores]]":
    """As `scored_comparisons`, with the scores of all jobs; `manifests` are those by `score_share`, in their order.

    Raises:
        UserError: a part is missing or damaged; the manifest of its job is then removed.
    """
    shares = [ScoredShare.read(path) for path in manifests]
    data, bounds = _opened(tokens, shares[0].batch_tokens)
    for number, (share, path) in enumerate(zip(shares, manifests, strict=True)):
        parts = FinishedParts(shards, share.key)
        for part in share_of(len(bounds), number, len(shares)):
            scores = _part(parts, part, data, bounds[part])
            if scores is None:
                raise damaged(parts.path(part), path, "it is missing, or has changed since it was written")
            yield from _split([data[k] for k in bounds[part]], scores)
    FinishedParts(shards, shares[0].key).delete_others(*(share.key for share in shares))


def _opened(tokens: Path, batch_tokens: int) -> tuple[TokenDataset, list[list[int]]]:
    """The comparisons of the eval split, and the indices of those of each part."""
    data = TokenDataset(tokens, "eval")
    if not data.pairs and not data.answers:
        raise UserError(f"{tokens} has no pairs to evaluate; its benchmark or eval split is empty")
    sizes = data.tokens.tolist()
    return data, list(windows(range(len(sizes)), sizes.__getitem__, batch_tokens))


def _part(parts: FinishedParts, number: int, data: TokenDataset, window: Sequence[int]) -> "Scores | None":
    """The scores of all answers of a part, or None; of a part of other comparisons too."""
    content = parts.load(number)
    scores, answers = None if content is None else np.frombuffer(content, dtype="<f4"), data.tail_counts[window].sum()
    if scores is None or len(scores) == 0 or len(scores) % answers:
        return None
    return scores if len(scores) == answers else scores.reshape(answers, -1)


def _split(window: Sequence[Comparison], scores: "Scores") -> "Iterator[tuple[Comparison, Scores]]":
    answers = [len(comparison.tails) for comparison in window]
    return zip(window, np.split(scores, np.cumsum(answers)[:-1]), strict=True)


def _scorer(job: PairScoring, data: TokenDataset) -> "Callable[[Sequence[Comparison]], list[Scores]]":
    from rewardline.scoring.batch_scorer import window_scorer

    return window_scorer(
        job.model,
        max_length=data.manifest.max_length,
        batch_tokens=job.batch_tokens,
        trust_remote_code=job.trust_remote_code,
        processes=job.processes,
    )


def score_of(outputs: "Scores") -> "Scores":
    """The scores, float32 [K], of what `scored_comparisons` gives for a comparison."""
    return outputs if outputs.ndim == 1 else outputs[:, 0]


def with_answers(
    scored: "Iterable[tuple[Comparison, Scores]]", add: Callable[[RatedScore], None]
) -> "Iterator[tuple[Comparison, Scores]]":
    """The scored comparisons; `add` gets their single answers with ratings."""
    for comparison, outputs in scored:
        for answer in comparison.answers:
            add(
                RatedScore(
                    answer_id=answer.answer_id,
                    prompt_id=comparison.prompt_id,
                    dataset=answer.dataset,
                    subset=answer.subset,
                    score=float(score_of(outputs)[answer.tail]),
                    outputs=outputs[answer.tail, 1:].tolist() if outputs.ndim > 1 else [],
                    tokens=len(comparison.prefix) + len(comparison.tails[answer.tail]),
                    ratings=answer.ratings,
                    weight=answer.weight,
                )
            )
        yield comparison, outputs


def scored_pairs(scored: "Iterable[tuple[Comparison, Scores]]", pairs: Path | None) -> Iterator[ScoredPair]:
    """The pairs of scored comparisons, in the order of the tokens.

    `pairs`: the folder of the pairs that were tokenized, in the same order, for their `Origin`. Those that were dropped
    by tokenizing are skipped.

    Raises:
        UserError: a pair of the tokens is missing there.
    """
    origins = None if pairs is None else read_rows(pairs / "eval", ["pair_id", *Origin.__annotations__])
    for number, (comparison, outputs) in enumerate(scored):
        scores = score_of(outputs)
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
