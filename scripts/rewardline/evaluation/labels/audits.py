"""An audit of labels: how probable it is that each training label is wrong, by models that never saw its prompt.

The scores of each fold's model are in units of their own root mean square, the share of wrong labels and the
reliability of the models by margin are fitted to all folds together, and a label's probability follows by Bayes' rule
(`metrics.labels`). Models that agree with too few labels judge none. Confident learning (Northcutt et al. 2021, arXiv
1911.00068) counts labels beyond a threshold of mean confidence instead, which for two exchangeable answers is one
number for all of them.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rewardline.core.errors import UserError
from rewardline.core.files import atomic_folder
from rewardline.data.parquet import read_rows
from rewardline.data.schema import hash_texts
from rewardline.evaluation.labels.audit_result import AuditResult
from rewardline.evaluation.labels.find_suspects import find_suspects
from rewardline.evaluation.labels.suspects import SUSPECTS, write_suspects
from rewardline.evaluation.metrics.intervals import Floats
from rewardline.evaluation.metrics.labels import judge
from rewardline.evaluation.preferences import Preferences
from rewardline.evaluation.scores import Ids, read_table
from rewardline.evaluation.settings import AuditSettings

log = logging.getLogger(__name__)
LABELS, RESULT = "labels.parquet", "audit.json"
COLUMNS = ("pair_id", "prompt_id", "dataset", "subset")


def audit_labels(settings: AuditSettings, scores: Sequence[Path], pairs: Path, output: Path) -> AuditResult:
    """Write `labels.parquet`, `suspects.parquet` with the texts of the most doubtful ones, and `audit.json`.

    Probabilities are null, and no label is a suspect, if the models are not fit to judge; `audit.json` says why.

    `scores`: the `scores.parquet` of each fold, in order; `pairs`: the training pairs of the mixture.

    Raises:
        UserError: a file is missing or damaged.
    """
    tables, margins = [], []
    for fold, path in enumerate(scores):
        table = read_table(path, (*COLUMNS, "chosen_score", "rejected_score"))
        chosen, rejected = (table[name].to_numpy().astype(np.float64) for name in ("chosen_score", "rejected_score"))
        margin = chosen - rejected
        if not np.isfinite(margin).all():
            raise UserError(f"{path}: a score is not finite; delete it and run the evaluate stage again")
        margins.append(margin / (float(np.sqrt((margin**2).mean())) or 1.0))
        columns = [table[name].cast(pa.string()) for name in COLUMNS]
        tables.append(
            pa.table([*columns, pa.array([fold] * len(table), pa.int32())], names=[*COLUMNS, "fold"]).combine_chunks()
        )
    labels, margin = pa.concat_tables(tables), np.concatenate(margins)
    prompts = labels["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    judgement = judge(margin, prompts, settings.min_agreement)
    probability = pa.array(judgement.probability, from_pandas=True)
    labels = labels.append_column("margin", pa.array(margin)).append_column("probability", probability)
    order = np.lexsort((labels["pair_id"].to_numpy(zero_copy_only=False), margin, -judgement.probability))
    total = sum(row["ratings"] is None for row in read_rows(pairs, ["ratings"]))
    with atomic_folder(output) as out:
        pq.write_table(labels.take(pa.array(order)), out / LABELS, compression="zstd")
        ids, first = np.unique(hash_texts(labels["pair_id"].combine_chunks()), return_index=True)
        preferences = _preferences(ids, hash_texts(labels["prompt_id"].combine_chunks())[first], margin[first])
        doubt = judgement.probability[first]
        write_suspects(out / SUSPECTS, find_suspects(preferences, doubt, pairs, settings.audit, settings.mixture))
        result = AuditResult(
            name=settings.audit,
            mixture=settings.mixture,
            run=settings.run,
            folds=len(scores),
            n=len(labels),
            wrong=judgement.share * len(labels),
            wrong_low=judgement.share_low * len(labels),
            contradicted=int((margin < 0).sum()),
            unscored=total - len(labels),
            agreement=judgement.agreement,
            agreement_low=judgement.agreement_low,
            agreement_high=judgement.agreement_high,
            unjudged=judgement.unjudged,
        )
        result.write(out / RESULT, [LABELS, SUSPECTS])
    log.log(logging.WARNING if result.caution else logging.INFO, "%s", result.line())
    return result


def _preferences(pairs: Ids, prompt_ids: Ids, margin: Floats) -> Preferences:
    """The preferences of the models of all folds, each of which scored its own pairs: those of one run."""
    ones = np.ones(len(pairs), dtype=np.int32)
    return Preferences(
        pairs=pairs,
        prompts=np.arange(len(pairs)),
        prompt_ids=prompt_ids,
        repeats=ones.astype(np.int64),
        correct={},
        runs=ones,
        against=(margin < 0).astype(np.int32),
        margin_mean=margin,
        margin_std=np.zeros(len(pairs)),
    )
