"""The report's tables of data, tokens and training runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from rewardline.core.hashing import canonical
from rewardline.data.pairs.pair_statistics import MixtureStatistics
from rewardline.evaluation.results import printable
from rewardline.report.formatting import Table, compact, count, duration, percent
from rewardline.report.inputs import TokenCounts, TrainingRun, ratio

EXAMPLES = 3
LISTED = 60
LONGEST = 300
"""Characters of a setting or a reason that are shown."""


@dataclass(frozen=True)
class FunnelStep:
    """A number with its share (0 to 100) of the largest."""

    label: str
    value: str
    width: float


@dataclass(frozen=True)
class RejectReason:
    """A reason why rows, or pairs of other rows, were left out, with examples as (row, detail)."""

    reason: str
    rows: str
    share: str
    pairs: str
    examples: list[tuple[str, str]]


@dataclass(frozen=True)
class Mixture:
    """What became of the data of a mixture. `sentences` say what its pairs look like; `tables` have titles."""

    name: str
    funnel: list[FunnelStep]
    rejects: list[RejectReason]
    pair_rejects: bool
    sentences: list[str]
    tables: list[tuple[str, Table]]


@dataclass(frozen=True)
class Provenance:
    """A part of what the runs recorded: the values they have in common, and a table of those that differ."""

    title: str
    common: list[tuple[str, str]]
    different: Table | None


def mixture(name: str, stats: MixtureStatistics) -> Mixture:
    """The tables of a mixture."""
    funnel = {
        "rows read": stats.rows_in,
        "rows used": stats.rows_used,
        "pairs": stats.pairs_out,
        "training pairs": stats.train,
        "held-out pairs (eval)": stats.eval,
    }
    largest = max(funnel.values()) or 1
    tables = {
        "by dataset": _by_dataset(stats),
        "by subset": _by_subset(stats),
        "by length of the answers": _by_length(stats),
    }
    return Mixture(
        name=name,
        funnel=[FunnelStep(label, count(size), round(100 * size / largest, 2)) for label, size in funnel.items()],
        rejects=_rejects(stats),
        pair_rejects=bool(stats.pair_rejects),
        sentences=_sentences(stats),
        tables=[(title, table) for title, table in tables.items() if table.rows],
    )


def token_table(manifests: Mapping[str, TokenCounts]) -> Table | None:
    """A row per mixture and model."""
    rows = []
    for name, one in manifests.items():
        total = one.totals
        truncated = count(one.truncated_pairs)
        if math.isfinite(one.truncated_share):
            truncated += f" ({percent(one.truncated_share)})"
        rows.append(
            {
                "mixture and model": name,
                "pairs": count(total.pairs),
                "comparisons": count(total.comparisons),
                "tokens": compact(total.tokens),
                "in full": compact(total.full_tokens),
                "saved": percent(1 - ratio(total.tokens, total.full_tokens)),
                "shared prefix": percent(ratio(total.prefix_tokens, total.tokens)),
                "truncated pairs": truncated,
                "truncated tokens": count(one.truncated_tokens),
                "dropped pairs": count(sum(one.dropped.values())),
            }
        )
    return _table(rows)


def training_table(runs: Sequence[TrainingRun]) -> Table | None:
    """A row per run: what was trained, on what, how fast and from which code."""
    rows = []
    for run in runs:
        one = run.record
        parameters = compact(one.parameters)
        if math.isfinite(one.trained_parameters) and one.trained_parameters != one.parameters:
            parameters = f"{compact(one.trained_parameters)} of {parameters}"
        device = printable(one.device) or "-"
        rows.append(
            {
                "run": run.run,
                "mixture": printable(one.mixture) or "-",
                "model": printable(one.model) or "-",
                "seed": "-" if one.seed is None else str(one.seed),
                "trained parameters": parameters,
                "steps": count(one.steps),
                "pairs": count(one.pairs),
                "tokens": compact(one.tokens),
                "time": duration(one.seconds),
                "tokens/s": count(one.tokens_per_second),
                "device": f"{one.world_size:.0f} \N{MULTIPLICATION SIGN} {device}" if one.world_size > 0 else device,
                "commit": (printable(one.git.commit)[:12] or "-") + (" + changes" if one.git.dirty else ""),
            }
        )
    return _table(rows)


def provenance(runs: Sequence[TrainingRun]) -> list[Provenance]:
    """The settings, versions, hardware and all else that the runs recorded."""
    parts = {
        "settings": [run.record.training for run in runs],
        "versions": [run.record.versions for run in runs],
        "hardware": [run.record.hardware for run in runs],
        "more": [run.record.others for run in runs],
    }
    result = []
    for title, values in parts.items():
        records = [_flat(value) for value in values]
        keys = sorted({key for record in records for key in record})
        by_key = {key: [record.get(key, "-") for record in records] for key in keys}
        common = [(key, found[0]) for key, found in by_key.items() if len(set(found)) == 1]
        different = [[key, *found] for key, found in by_key.items() if len(set(found)) > 1]
        if keys:
            table = Table([title, *(run.run for run in runs)], different) if different else None
            result.append(Provenance(title, common, table))
    return result


def _table(records: Sequence[Mapping[str, str]]) -> Table | None:
    """A table of records with equal keys; None without records."""
    return Table(list(records[0]), [list(record.values()) for record in records]) if records else None


def _rejects(stats: MixtureStatistics) -> list[RejectReason]:
    examples: dict[str, list[tuple[str, str]]] = {}
    for one in stats.reject_examples:
        found = examples.setdefault(one.reason, [])
        found.append((printable(f"{one.file}, row {one.row}"), printable(one.detail)[:LONGEST]))
    sizes = {
        reason: (stats.rejects.get(reason, 0), stats.pair_rejects.get(reason, 0))
        for reason in {**stats.rejects, **stats.pair_rejects}
    }
    return [
        RejectReason(
            printable(reason),
            count(rows),
            percent(ratio(rows, stats.rows_in)),
            count(pairs),
            examples.get(reason, [])[:EXAMPLES],
        )
        for reason, (rows, pairs) in sorted(sizes.items(), key=lambda item: (-sum(item[1]), item[0]))
        if rows or pairs
    ]


def _sentences(stats: MixtureStatistics) -> list[str]:
    chosen, rejected, similar = stats.chosen_words_mean, stats.rejected_words_mean, stats.similar_prompts
    sentences = [
        f"Chosen answers have {chosen:.1f} words on average, rejected ones {rejected:.1f}.",
        f"The longer answer is the chosen one in {percent(stats.longer_wins)} of the pairs.",
    ]
    if similar.groups:
        sentences.append(
            f"{count(similar.prompts)} prompts are nearly the same as others, in {count(similar.groups)} groups of up "
            f"to {count(similar.largest)}; all prompts of a group are in the same split."
        )
    if stats.soft_labels:
        sentences.append(f"{count(stats.soft_labels)} pairs have a soft label.")
    return sentences


def _by_length(stats: MixtureStatistics) -> Table:
    total = sum(stats.answer_words.values())
    rows = [[f"below {limit}", count(size), percent(ratio(size, total))] for limit, size in stats.answer_words.items()]
    return Table(["words", "answers", "of all"], rows)


def _by_dataset(stats: MixtureStatistics) -> Table:
    rows = [
        [printable(name), count(one.rows_in), count(one.pairs_out), count(sum(one.rejects.values()))]
        for name, one in sorted(stats.by_dataset.items())
    ]
    return Table(["dataset", "rows read", "pairs", "rows rejected"], rows)


def _by_subset(stats: MixtureStatistics) -> Table:
    """Pairs per subset, the largest first."""
    ordered = sorted(stats.by_subset.items(), key=lambda item: (-item[1], item[0]))
    rows = [[printable(name) or "(none)", count(pairs)] for name, pairs in ordered[:LISTED]]
    if len(ordered) > LISTED:
        rows.append([f"... and {len(ordered) - LISTED:,} more", ""])
    return Table(["subset", "pairs"], rows)


def _flat(value: JsonValue, prefix: str = "") -> dict[str, str]:
    """A nested object as one level of dotted keys; lists and scalars as JSON, strings plain."""
    if isinstance(value, dict):
        return {
            key: text
            for name, inner in value.items()
            for key, text in _flat(inner, f"{prefix}.{name}" if prefix else name).items()
        }
    text = value if isinstance(value, str) else canonical(value)
    return {printable(prefix): printable(text if len(text) <= LONGEST else text[:LONGEST] + " ... see run.json")}
