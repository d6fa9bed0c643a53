"""An ensemble of reward models: a folder, or several models, whose scores are combined."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from rewardline.core.artifacts import Manifest, read_manifest, verify_files
from rewardline.core.errors import UserError
from rewardline.data.turns import TemplateInputs
from rewardline.scoring.combination import Combination
from rewardline.scoring.rows import AnswerScores, UnscorableError
from rewardline.scoring.settings import ENSEMBLE, CombineSettings
from rewardline.scoring.text_scorer import Scorer
from rewardline.tokens.store import Comparison
from rewardline.tokens.templates import Prompt

log = logging.getLogger(__name__)


class MemberEntry(BaseModel):
    """A member in `ensemble.json`: its run, its folder beside that file, and the moments of its scores."""

    run: str
    folder: str
    mean: float
    std: float


class EnsembleManifest(Manifest):
    """`ensemble.json`: the members, how their scores are combined, and the benchmark that the moments are from."""

    name: str
    combine: CombineSettings
    benchmark: str
    members: list[MemberEntry]


class EnsembleScorer:
    """Scores that several models give together, each with mean and standard deviation over the models.

    The scores of each are standardized first, by moments that are known before, so that a score does not depend on
    others that are computed with it. Not for several threads at once.
    """

    beside = ("mean", "std")

    def __init__(
        self, name: str, members: Sequence[Scorer], settings: CombineSettings, moments: Sequence[tuple[float, float]]
    ) -> None:
        """`moments`: mean and standard deviation of the scores of each member.

        Raises:
            UserError: the members read a text in different ways.
        """
        first, *others = members
        for other in others:
            for what, reading in first.reading.items():
                if other.reading[what] != reading:
                    raise UserError(
                        f"{first.name} and {other.name} have different {what}, so that they do not read the same "
                        "tokens at the same place; name models of one base and one template"
                    )
        self.name = name
        self._members, self._settings, self._moments = members, settings, moments

    @property
    def max_length(self) -> int:
        """The most tokens of a prompt with an answer."""
        return self._members[0].max_length

    @property
    def reads_names(self) -> bool:
        """Whether names of systems are system prompts, as in training."""
        return self._members[0].reads_names

    @property
    def cut(self) -> int:
        """How many prompts and texts have lost their beginning so far."""
        return self._members[0].cut

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Sequence[str]],
        inputs: Sequence[TemplateInputs] | None = None,
    ) -> list[list[float] | UnscorableError]:
        """As `Scorer.score`; each list is an `AnswerScores`."""
        return self.score_encoded(self.encode(prompts, answers, inputs))

    def encode(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[Sequence[str]],
        inputs: Sequence[TemplateInputs] | None = None,
    ) -> list[Comparison | UnscorableError]:
        """As `Scorer.encode`: the tokens, which are the same for all members."""
        return self._members[0].encode(prompts, answers, inputs)

    def encode_texts(self, texts: Sequence[str], ended: bool) -> list[Comparison | UnscorableError]:
        """As `Scorer.encode_texts`."""
        return self._members[0].encode_texts(texts, ended)

    def encode_ids(self, sequences: Sequence[Sequence[int]]) -> list[Comparison | UnscorableError]:
        """As `Scorer.encode_ids`."""
        return self._members[0].encode_ids(sequences)

    def score_encoded(self, items: Sequence[Comparison | UnscorableError]) -> list[list[float] | UnscorableError]:
        """As `Scorer.score_encoded`; each list is an `AnswerScores`."""
        by_member = [member.score_encoded(items) for member in self._members]
        return [self._combined(scores) for scores in zip(*by_member, strict=True)]

    def _combined(self, by_member: Sequence[list[float] | UnscorableError]) -> list[float] | UnscorableError:
        combination: Combination | None = None
        for scores, (mean, std) in zip(by_member, self._moments, strict=True):
            if isinstance(scores, UnscorableError):
                return scores
            combination = combination or Combination((len(scores),))
            combination.add((np.asarray(scores, dtype=np.float64) - mean) / (std or 1.0))
        assert combination is not None
        values = combination.mean, np.sqrt(combination.variance)
        beside = {name: found.tolist() for name, found in zip(self.beside, values, strict=True)}
        return AnswerScores(combination.combined(self._settings).tolist(), beside)


AnyScorer = Scorer | EnsembleScorer


def load_ensemble(
    models: Sequence[str],
    combine: str | None,
    variance_weight: float | None,
    load: Callable[[str], Scorer] = Scorer,
    *,
    raw: bool = False,
) -> EnsembleScorer:
    """The ensemble in a folder, or that of several models, each by `load`; `raw`: without their normalizations.

    Models that are named one by one are combined as they were normalized. The mean alone can do without that, as log
    odds of different models are on one scale, and their origin does not matter. The standard deviation then has the
    distances between the origins in it, with a warning.

    Raises:
        UserError: a model cannot be used, or does not fit the others.
    """
    given: dict[str, object] = {"combine": combine, "variance_weight": variance_weight}
    given = {name: value for name, value in given.items() if value is not None}
    if nested := [model for model in models if len(models) > 1 and (Path(model) / ENSEMBLE).is_file()]:
        raise UserError(f"--model {nested[0]} is an ensemble itself; name its members, in {nested[0]}/members")
    if len(models) == 1:
        path = Path(models[0]) / ENSEMBLE
        verify_files(path, repair=False)
        manifest = EnsembleManifest.model_validate(read_manifest(path, repair=False))
        if raw:
            raise UserError(f"--raw is not for an ensemble: {path} standardizes the scores as they were evaluated")
        scorers = [load(str(path.parent / one.folder)) for one in manifest.members]
        moments = [(one.mean, one.std) for one in manifest.members]
        return EnsembleScorer(models[0], scorers, manifest.combine.replace(**given), moments)
    settings = CombineSettings.model_validate(given)
    scorers = [load(model) for model in models]
    known = [scorer.moments for scorer in scorers]
    unknown = [scorer.name for scorer, found in zip(scorers, known, strict=True) if found is None]
    if unknown and (settings.combine != "mean" or len(unknown) < len(scorers)):
        raise UserError(
            f"--combine {settings.combine}: the scores of {unknown[0]} are not normalized, so that they have an origin "
            "and a spread of their own. Train with `normalize: true`, or name an `ensemble` in the configuration: its "
            "folder in results/models knows them"
        )
    if unknown:
        log.warning(
            "the scores of %s are not normalized: the standard deviation over the models has the constant differences "
            "between their origins in it, and does not say how much they disagree. Train with `normalize: true`, or "
            "name an `ensemble` in the configuration: its folder knows the origins", ", ".join(unknown),
        )  # fmt: skip
    return EnsembleScorer("+".join(models), scorers, settings, [found or (0.0, 1.0) for found in known])
