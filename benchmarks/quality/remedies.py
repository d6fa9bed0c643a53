"""Each remedy on real data, on and off: the audit of labels, length control, augmentation, ensembles and averages."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from figures import accuracy_of, difference_of
from pipeline import ACTIONS, AUGMENTED, COMBINATIONS, CONTROLLED, ENCODER, PLAIN, PROBES, SHOWN_HACKS, Family
from trained import tune

from rewardline.core.files import read_json
from rewardline.core.settings import JsonObject

COMBINED = (*(f"ensemble-{combination}" for combination in COMBINATIONS), "average")
TRAINED = (CONTROLLED, *AUGMENTED, *ACTIONS)
REMEDIES = (*COMBINED, *TRAINED)
LABELS, AUDIT = "audits/audit/labels.parquet", "audits/audit/audit.json"
JUDGED = ("agreement", "agreement_low", "agreement_high", "unjudged")
"""What is shown of `audit.json`."""


def remedies(family: Family, names: Sequence[str] = REMEDIES) -> JsonObject:
    """Train with and without each remedy of `names`, and compare on the test sets and on manipulated answers.

    A remedy counts by the mean of its seeds. Each difference is of the same pairs to the mean of `PLAIN`'s seeds.
    """
    rates = tune(family, ENCODER)
    runs = {name: [name] if name in COMBINED else family.seeds(name) for name in (PLAIN, *names)}
    targets = family.evaluated([run for ids in runs.values() for run in ids], PROBES)
    is_audited = not set(ACTIONS).isdisjoint(names)
    family.make([*targets, *([LABELS] if is_audited else [])], rates)
    found: JsonObject = {"train": family.training_pairs(), "seeds": family.plan.seeds, "learning_rate": rates[ENCODER]}
    if is_audited:
        labels = pd.read_parquet(family.results / LABELS)
        audit = read_json(family.results / AUDIT)
        found |= {"audited": len(labels), "in_doubt": int((labels.probability > 0.5).sum())}
        found["audit"] = {key: audit[key] for key in JUDGED if key in audit} if isinstance(audit, dict) else {}
    found["rows"] = {}
    for name, ids in runs.items():
        found["rows"][name] = {
            "tests": _compared(family, runs[PLAIN], ids, list(family.tests.values()), lambda _: True),
            "manipulated": _compared(family, runs[PLAIN], ids, [PROBES], lambda kind: kind not in SHOWN_HACKS),
            "manipulated_as_trained": _compared(family, runs[PLAIN], ids, [PROBES], lambda kind: kind in SHOWN_HACKS),
            "kinds": _by_kind(family, ids),
            **{key: _length(family, ids, key) for key in ("correlation", "controlled_accuracy")},
        }
    return found


def _by_kind(family: Family, ids: Sequence[str]) -> JsonObject:
    """The accuracy on each kind of manipulated answers, the mean of the seeds."""
    of_kinds = pd.concat([family.scores(run, PROBES) for run in ids]).groupby("subset", observed=True).correct.mean()
    return {str(kind): float(accuracy) for kind, accuracy in of_kinds.items()}


def _length(family: Family, ids: Sequence[str], key: str) -> float | None:
    """A figure of the effect of length, the mean over seeds and test sets; None if none has it."""
    found = [family.metrics(run, test).get("length", {}).get(key) for run in ids for test in family.tests.values()]
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def _compared(
    family: Family, plain: Sequence[str], ids: Sequence[str], tests: Sequence[str], counts: Callable[[str], bool]
) -> JsonObject:
    """Accuracy, and the difference to `plain`, of the pairs of test sets whose subset `counts`."""
    tables = {run: pd.concat([family.scores(run, test) for test in tests]) for run in {*plain, *ids}}
    first = tables[ids[0]]
    pairs = first.index[first.subset.map(counts).to_numpy(bool)]
    for table in tables.values():
        pairs = pairs.intersection(table.index)
    correct = {run: table.correct.loc[pairs].to_numpy(float) for run, table in tables.items()}
    prompts = first.prompt_id.loc[pairs]
    without, remedied = (np.mean([correct[run] for run in group], axis=0) for group in (plain, ids))
    seeds = [float(np.mean(correct[run] - without)) for run in ids]
    return {
        **accuracy_of(remedied, prompts),
        **{"pairs": len(pairs), "seeds": seeds},
        **({} if list(ids) == list(plain) else {"difference": difference_of(remedied, without, prompts)}),
    }
