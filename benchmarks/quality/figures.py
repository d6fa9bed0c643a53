"""Figures with their intervals, and the tables of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from baselines import STYLED

from rewardline.core.settings import JsonObject
from rewardline.evaluation.metrics.intervals import accuracy, difference_interval

Floats = npt.NDArray[np.float64]
ALL = "all sets"


def _codes(prompts: pd.Series) -> npt.NDArray[np.int64]:
    codes: npt.NDArray[np.int64] = np.unique(prompts.to_numpy(str), return_inverse=True)[1]
    return codes


def accuracy_of(correct: Floats, prompts: pd.Series) -> JsonObject:
    """The mean of `correct`, with its 95% interval over `prompts`."""
    return dict(accuracy(correct, _codes(prompts)))


def difference_of(first: Floats, second: Floats, prompts: pd.Series) -> JsonObject:
    """The mean paired difference, with its 95% interval over prompts."""
    low, high = difference_interval(first - second, _codes(prompts))
    return {"difference": float((first - second).mean()), "low": low, "high": high}


def compared(tables: Mapping[str, pd.DataFrame], model: str | None) -> JsonObject:
    """By set, the accuracy of each method, and the difference of `model` to it.

    `tables`: by set, prompt_id and a column for each method with what it gets right, NaN for pairs that it has not
    scored. Methods are compared on the pairs that all of them have scored; the others are counted.
    """
    result: JsonObject = {}
    for name, table in {**tables, **({ALL: pd.concat(tables.values())} if len(tables) > 1 else {})}.items():
        scored = table.dropna()
        entry: JsonObject = {"pairs": len(scored), "left_out": len(table) - len(scored), "accuracy": {}, "ahead": {}}
        for method in scored.columns.drop("prompt_id"):
            correct = scored[method].to_numpy(float)
            entry["accuracy"][method] = accuracy_of(correct, scored.prompt_id)
            if model not in (None, method):
                entry["ahead"][method] = difference_of(scored[model].to_numpy(float), correct, scored.prompt_id)
        result[name] = entry
    return result


def _percent(entry: JsonObject, key: str = "accuracy") -> str:
    low, high = (100 * entry[f"{key}_{end}"] for end in ("low", "high"))
    return f"{100 * entry[key]:.1f} ({low:.1f}-{high:.1f})"


def _points(entry: JsonObject) -> str:
    difference, low, high = (100 * entry[key] for key in ("difference", "low", "high"))
    return f"{difference:+.1f} ({low:+.1f} to {high:+.1f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown(results: JsonObject) -> str:
    """All results as Markdown."""
    parts = ["Accuracies and differences in percent, with 95% intervals over prompts."]
    for family, found in results["families"].items():
        parts.append(f"## {family}")
        if found["options"]["small"]:
            parts.append("With tiny random models in place of SmolLM2 and MiniLM: this says nothing about quality.")
        if "sets" in found:
            parts += _of_sets(found)
        if "remedies" in found:
            parts += _of_remedies(found["remedies"])
    return "\n\n".join(parts) + "\n"


def _of_sets(found: JsonObject) -> list[str]:
    sets = found["sets"]
    count = [
        f"{entry['pairs']:,}" + (f" (and {entry['left_out']} too long)" if entry["left_out"] else "")
        for entry in sets.values()
    ]
    first = next(iter(sets.values()))
    rows = [["pairs", *count]]
    rows += [
        [method, *(_percent(entry["accuracy"][method]) for entry in sets.values())] for method in first["accuracy"]
    ]
    known = found["known"]
    if known:
        rows.append(
            ["known, by another split", *(f"{100 * known[name]:.1f}" if name in known else "" for name in sets)]
        )
    parts = [f"Held out; {found['train']:,} pairs to train on.", _table(["", *sets], rows)]
    if first["ahead"]:
        model = found["model"]
        rows = [[method, *(_points(entry["ahead"][method]) for entry in sets.values())] for method in first["ahead"]]
        parts += [f"{model} minus the others, on the same pairs:", _table(["", *sets], rows)]
        styled = {name: entry["ahead"][STYLED] for name, entry in sets.items()}
        beaten = [name for name, one in styled.items() if one["low"] > 0]
        parts.append(f"It beats {STYLED} beyond the interval on: {', '.join(beaten) or 'none'}.")
        rows = [
            [
                *(name, *(f"{facts[key]:,}" for key in ("pairs", "steps", "tokens")), f"{facts['learning_rate']:g}"),
                f"{facts['tokens_per_second']:,.0f}" if "tokens_per_second" in facts else "",
            ]
            for name, facts in found["trained"].items()
        ]
        head = ["trained", "pairs", "steps", "real tokens", "learning rate", "real tokens/s"]
        parts.append(_table(head, rows))
    return parts


def _of_remedies(found: JsonObject) -> list[str]:
    rows = []
    for name, row in found["rows"].items():
        cells = [name]
        for key in ("tests", "manipulated", "manipulated_as_trained"):
            cells.append(_percent(row[key]))
            cells.append(_points(row[key]["difference"]) if "difference" in row[key] else "")
        seeds = [100 * value for value in row["tests"]["seeds"]]
        cells.insert(3, f"{min(seeds):+.1f} to {max(seeds):+.1f}" if len(seeds) > 1 else "")
        controlled, correlation = row["controlled_accuracy"], row["correlation"]
        cells.append("" if controlled is None else f"{100 * controlled:.1f}")
        rows.append([*cells, "" if correlation is None else f"{correlation:.2f}"])
    head = [
        "",
        "test sets",
        "minus plain",
        "seeds minus plain",
        "manipulated, other kinds than of `hacks`",
        "minus plain",
    ]
    head += ["kinds of `hacks`", "minus plain", "accuracy at equal length", "correlation with length"]
    about = f"Remedies, on MiniLM-L6 with {found['train']:,} training pairs and {found['seeds']} seeds each"
    kinds = list(next(iter(found["rows"].values())).get("kinds", {}))
    by_kind = [[name, *(f"{100 * row['kinds'][kind]:.0f}" for kind in kinds)] for name, row in found["rows"].items()]
    tables = [_table(head, rows), *([_table(["manipulated", *kinds], by_kind)] if kinds else [])]
    return [f"{about}.", *_of_audit(found), *tables]


def _of_audit(found: JsonObject) -> list[str]:
    """What the audit says of the labels, and how many of them its models agree with."""
    if "audited" not in found:
        return []
    audit, labels = found.get("audit", {}), f"{found['audited']:,} labels"
    agreement, unjudged = audit.get("agreement"), audit.get("unjudged", "")
    is_said = agreement is None or f"{agreement:.1%}" in unjudged
    agrees = "" if is_said else f"; its models agree with {_percent(audit, 'agreement')}% of them"
    if unjudged:
        return [f"Of {labels} the audit judges no label, so that mixtures made of it keep all: {unjudged}{agrees}."]
    return [f"The audit doubts {found['in_doubt']:,} of {labels}{agrees}."]
