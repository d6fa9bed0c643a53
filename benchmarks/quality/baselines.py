"""What a reward model should beat: rules and shallow models that see only the two answers, and an untrained model."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from rewardline.model.loading import DTYPES
from rewardline.tokens.store import TokenDataset

Floats = npt.NDArray[np.float64]
LENGTH, TFIDF, STYLED, MIXED = "length only", "TF-IDF", "TF-IDF + style", "TF-IDF + style, all sets"
MEAN, SUM = "likelihood per token", "likelihood"
STRENGTHS = (0.06, 0.2, 0.6, 2.0, 6.0)
"""Inverse strengths of the penalty (C), of which the best in cross-validation over prompts is taken."""
COLUMNS = ["pair_id", "prompt_id", "dataset", "chosen", "rejected"]
STYLE = (
    *(r"\w+", r"[.!?](?=\s|$)", r"\n", r"\?", r"!", r",", r"[\"'“”]", r"\d", r"[A-Z]", r"^\s*(?:[-*•]|\d+[.)])\s"),
    *(
        r"`",
        r"\b(?:I|I'm|I'd|me|my)\b",
        r"\b[Yy]ou(?:r|'re)?\b",
        r"\b[Ss]orry\b",
        r"\b(?:not|no|never|\w+n't)\b",
        r"\w{8,}",
    ),
)
"""What is counted in an answer."""


def read_pairs(folder: Path) -> pd.DataFrame:
    """The pairs of a split: `COLUMNS`."""
    return pd.read_parquet(folder, columns=COLUMNS)


def style(texts: Iterable[str]) -> Floats:
    """Features of form, float64 [texts, features]: numbers of what `STYLE` names, and their shares of the words."""
    patterns = [re.compile(pattern, re.MULTILINE) for pattern in STYLE]
    counts = np.array([[len(text), *(len(one.findall(text)) for one in patterns)] for text in texts], dtype=float)
    return np.hstack([np.log1p(counts), counts / np.maximum(counts[:, 1:2], 1)])


class Shallow:
    """A logistic regression of the preferred answer on the difference between the features of two answers."""

    def __init__(self, pairs: pd.DataFrame, *, words: bool, form: bool) -> None:
        """Fit it; `words`: on TF-IDF of words and pairs of words, `form`: on `style`, neither: on length alone."""
        self._form = form
        self._terms: TfidfVectorizer | None = None
        if words:
            self._terms = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=100_000)
            self._terms.fit(pd.concat([pairs.chosen, pairs.rejected]))
        # Of length alone: its logarithm.
        self._columns = slice(None) if form else slice(0, 1)
        self._scale = np.ones(1)
        self._scale = np.maximum(self._dense(pairs).std(axis=0), 1e-9)
        features = self._differences(pairs)
        right = np.zeros(len(STRENGTHS))
        for train, held_out in GroupKFold(5).split(features, groups=pairs.prompt_id):
            for number, strength in enumerate(STRENGTHS):
                right[number] += np.sum(features[held_out] @ _fit(features[train], strength) > 0)
        self._weights = _fit(features, STRENGTHS[int(right.argmax())])

    def correct(self, pairs: pd.DataFrame) -> Floats:
        """1 for each pair whose chosen answer has the greater score, 0.5 for equal scores, else 0."""
        difference = self._differences(pairs) @ self._weights
        return (difference > 0) + 0.5 * (difference == 0)

    def _dense(self, pairs: pd.DataFrame) -> Floats:
        return (style(pairs.chosen) - style(pairs.rejected))[:, self._columns] / self._scale

    def _differences(self, pairs: pd.DataFrame) -> csr_matrix:
        parts = []
        if self._terms is not None:
            parts.append(self._terms.transform(pairs.chosen) - self._terms.transform(pairs.rejected))
        if self._form or self._terms is None:
            parts.append(csr_matrix(self._dense(pairs)))
        return hstack(parts, format="csr")


def _fit(features: csr_matrix, strength: float) -> Floats:
    """The weights of a logistic regression without intercept, for which the order of a pair makes no difference."""
    signs = np.resize([1, -1], features.shape[0])  # as both classes must be there
    model = LogisticRegression(C=strength, fit_intercept=False, solver="newton-cg", max_iter=1000)
    weights: Floats = model.fit(features.multiply(signs[:, np.newaxis]).tocsr(), signs).coef_[0]
    return weights


def shallow(pairs: Path, tests: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    """By test set, which of its pairs shallow models get right, by the pair's id; with the prompt's id.

    They are trained on the training and the eval split of `pairs`: all but `MIXED` on the dataset with the name of the
    test set alone, which is more favorable. `tests`: the pairs of each test set.
    """
    train = pd.concat([read_pairs(pairs / split) for split in ("train", "eval")])
    mixed = {MIXED: Shallow(train, words=True, form=True)} if len(tests) > 1 else {}
    tables = {}
    for dataset, folder in tests.items():
        own, tested = train[train.dataset == dataset], read_pairs(folder / "eval")
        models = {
            LENGTH: Shallow(own, words=False, form=False),
            TFIDF: Shallow(own, words=True, form=False),
            STYLED: Shallow(own, words=True, form=True),
            **mixed,
        }
        columns = {name: model.correct(tested) for name, model in models.items()}
        tables[dataset] = pd.DataFrame({"prompt_id": tested.prompt_id, **columns}).set_index(pd.Index(tested.pair_id))
    return tables


def likelihood(base: Path, tokens: Path, precision: str) -> pd.DataFrame:
    """Which pairs the untrained model gets right that prefers the answer with the greater likelihood, by pair id.

    Of an answer, its end token included, given its prompt: the sum of the log-probabilities, and their mean.
    `precision`: of the weights, a name of `DTYPES`.
    """
    model = AutoModelForCausalLM.from_pretrained(base, dtype=DTYPES[precision]).eval()
    data = TokenDataset(tokens, "eval")
    rows = []
    for number in range(len(data)):
        comparison = data[number]
        sums = [
            _log_probability(model, [*comparison.prefix.tolist(), *tail.tolist()], len(comparison.prefix))
            for tail in comparison.tails
        ]
        lengths = [len(tail) for tail in comparison.tails]
        for pair in comparison.pairs:
            total = sums[pair.chosen] - sums[pair.rejected]
            mean = sums[pair.chosen] / lengths[pair.chosen] - sums[pair.rejected] / lengths[pair.rejected]
            rows.append({"pair_id": pair.pair_id, MEAN: _correct(mean), SUM: _correct(total)})
    return pd.DataFrame(rows).set_index("pair_id")


def _log_probability(model: torch.nn.Module, ids: list[int], start: int) -> float:
    """The log-probability of `ids[start:]`, at least of all but the first token, after those before them."""
    start = max(start, 1)
    with torch.inference_mode():
        keep = len(ids) - start + 1
        logits = model(torch.tensor([ids]), logits_to_keep=keep).logits[0, :-1].float()
        return -float(cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum"))


def _correct(difference: float) -> float:
    return (difference > 0) + 0.5 * (difference == 0)
