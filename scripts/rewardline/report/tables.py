"""The report's tables of data, tokens and provenance, as values that the template can print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardline.core.hashing import canonical
from rewardline.evaluation.results import printable
from rewardline.report.findings import compact, count, duration, number, ratio
from rewardline.report.summary import percent
from rewardline.report.training import Training

EXAMPLES = 3
LISTED = 60
LONGEST = 300


@dataclass(frozen=True)
class Bar:
    """A number in the funnel, with its share (0 to 100) of the largest."""

    label: str
    value: str
    width: float


@dataclass(frozen=True)
class Reject:
    """Why rows were left out, how many, and examples as (where, what).

    `pairs` counts pairs left out of rows that gave others.
    """

    reason: str
    rows: str
    share: str
    pairs: str
    examples: list[tuple[str, str]]


@dataclass(frozen=True)
class Mixture:
    """What became of the data of one mixture. `facts` are sentences; `tables` have a title, a head and rows."""

    name: str
    funnel: list[Bar]
    rejects: list[Reject]
    pair_rejects: bool
    rejected: float
    facts: list[str]
    tables: list[tuple[str, list[str], list[list[str]]]]


@dataclass(frozen=True)
class Settings:
    """A part of the provenance: what all runs have in common, and per key what each run has where they differ."""

    title: str
    common: list[tuple[str, str]]
    different: list[list[str]]


def mixture(name: str, stats: Mapping[str, Any]) -> Mixture:
    """Read a mixture's `stats.json`; what it lacks is left out."""
    steps = [
        ("rows read", stats.get("rows_in")),
        ("rows used", stats.get("rows_used")),
        ("pairs made", stats.get("pairs_out")),
        ("pairs to train on", stats.get("train")),
        ("pairs held out (eval)", stats.get("eval")),
    ]
    known = [(label, size) for label, value in steps if (size := number(value)) is not None]
    largest = max((size for _, size in known), default=0) or 1
    rejects = _mapping(stats.get("rejects"))
    return Mixture(
        name=name,
        funnel=[Bar(label, count(size), round(100 * size / largest, 2)) for label, size in known],
        rejects=_rejects(rejects, stats),
        pair_rejects=bool(stats.get("pair_rejects")),
        rejected=ratio(sum(number(value) or 0 for value in rejects.values()), stats.get("rows_in")),
        facts=_facts(stats),
        tables=[table for table in (_by_dataset(stats), _by_subset(stats), _answer_words(stats)) if table[2]],
    )


def tokens(name: str, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Read the `manifest.json` of tokens: a label and a value per fact, `-` where unknown."""
    splits = [_mapping(split) for split in _mapping(manifest.get("splits")).values()]
    total = {
        key: sum(found) if (found := [n for split in splits if (n := number(split.get(key))) is not None]) else None
        for key in ("pairs", "comparisons", "tokens", "prefix_tokens", "full_tokens")
    }
    dropped = manifest.get("dropped")
    if isinstance(dropped, Mapping):
        dropped = sum(number(value) or 0 for value in dropped.values())
    return {
        "mixture and model": name,
        "pairs": count(total["pairs"]),
        "comparisons": count(total["comparisons"]),
        "tokens": compact(total["tokens"]),
        "in full": compact(total["full_tokens"]),
        "saved": percent(1 - ratio(total["tokens"], total["full_tokens"])),
        "shared prefix": percent(ratio(total["prefix_tokens"], total["tokens"])),
        "truncated pairs": _part(manifest.get("truncated_pairs"), total["pairs"]),
        "truncated tokens": count(manifest.get("truncated_tokens")),
        "dropped pairs": count(dropped),
    }


def truncated(manifest: Mapping[str, Any]) -> float:
    """The share of pairs that lost tokens to the length limit; NaN where unknown."""
    splits = [_mapping(split) for split in _mapping(manifest.get("splits")).values()]
    return ratio(manifest.get("truncated_pairs"), sum(number(split.get("pairs")) or 0 for split in splits))


def as_table(records: Sequence[Mapping[str, str]]) -> tuple[list[str], list[list[str]]] | None:
    """Records with equal keys as a head and rows; None without records."""
    return (list(records[0]), [list(record.values()) for record in records]) if records else None


def trainings(trained: Sequence[Training]) -> list[dict[str, str]]:
    """A row per run: what was trained, on what, how fast and from which code."""
    return [_training(one.run, one.record) for one in trained]


def provenance(trained: Sequence[Training]) -> list[Settings]:
    """The settings, versions, hardware and all else that the runs recorded, what differs apart from what does not."""
    parts = {"settings": "training", "versions": "versions", "hardware": "hardware"}
    shown = {"run", "git", *parts.values(), *_TRAINING_KEYS}
    result = []
    for title, key in parts.items():
        result.append(_settings(title, [_flat(one.record.get(key)) for one in trained]))
    others = [{key: value for key, value in one.record.items() if key not in shown} for one in trained]
    result.append(_settings("more", [_flat(record) for record in others]))
    return [part for part in result if part.common or part.different]


_TRAINING_KEYS = {
    *("model", "mixture", "seed", "parameters", "trained_parameters", "steps", "pairs", "tokens", "seconds"),
    *("tokens_per_second", "device", "world_size"),
}


def _training(run: str, record: Mapping[str, Any]) -> dict[str, str]:
    git = _mapping(record.get("git"))
    commit = printable(str(git.get("commit") or "-"))[:12]
    trained, all_of_them = record.get("trained_parameters"), record.get("parameters")
    parameters = compact(all_of_them)
    if number(trained) is not None and trained != all_of_them:
        parameters = f"{compact(trained)} of {parameters}"
    device = printable(str(record.get("device") or "-"))
    processes = number(record.get("world_size"))
    return {
        "run": run,
        "mixture": printable(str(record.get("mixture") or "-")),
        "model": printable(str(record.get("model") or "-")),
        "seed": "-" if record.get("seed") is None else str(record["seed"]),
        "trained parameters": parameters,
        "steps": count(record.get("steps")),
        "pairs": count(record.get("pairs")),
        "tokens": compact(record.get("tokens")),
        "time": duration(record.get("seconds")),
        "tokens/s": count(record.get("tokens_per_second")),
        "device": f"{processes:.0f} \N{MULTIPLICATION SIGN} {device}" if processes else device,
        "commit": commit + (" + changes" if git.get("dirty") else ""),
    }


def _settings(title: str, records: Sequence[Mapping[str, str]]) -> Settings:
    keys = sorted({key for record in records for key in record})
    values = {key: [record.get(key, "-") for record in records] for key in keys}
    return Settings(
        title,
        [(key, found[0]) for key, found in values.items() if len(set(found)) == 1],
        [[key, *found] for key, found in values.items() if len(set(found)) > 1],
    )


def _rejects(rejects: Mapping[str, Any], stats: Mapping[str, Any]) -> list[Reject]:
    examples: dict[str, list[tuple[str, str]]] = {}
    for example in stats.get("reject_examples") or []:
        one = _mapping(example)
        where = f"{one.get('file', one.get('dataset', '?'))}, row {one.get('row', '?')}"
        found = examples.setdefault(str(one.get("reason")), [])
        found.append((printable(where), printable(str(one.get("detail") or ""))[:300]))
    pairs = _mapping(stats.get("pair_rejects"))
    sizes = {
        reason: (number(rejects.get(reason)) or 0, number(pairs.get(reason)) or 0) for reason in {**rejects, **pairs}
    }
    return [
        Reject(
            printable(reason),
            count(rows),
            percent(ratio(rows, stats.get("rows_in"))),
            count(of_pairs),
            examples.get(reason, [])[:EXAMPLES],
        )
        for reason, (rows, of_pairs) in sorted(sizes.items(), key=lambda item: (-sum(item[1]), item[0]))
        if rows or of_pairs
    ]


def _facts(stats: Mapping[str, Any]) -> list[str]:
    told = []
    chosen, rejected = number(stats.get("chosen_words_mean")), number(stats.get("rejected_words_mean"))
    if chosen is not None and rejected is not None:
        told.append(f"Chosen answers have {chosen:.1f} words on average, rejected ones {rejected:.1f}.")
    longer = stats.get("longer_wins")
    share = ratio(longer, stats.get("pairs_out")) if isinstance(longer, int) else number(longer)
    if share is not None and 0 <= share <= 1:
        told.append(f"The longer answer is the chosen one in {percent(share)} of the pairs.")
    similar = _mapping(stats.get("similar_prompts"))
    if number(similar.get("groups")):
        told.append(
            f"{count(similar.get('prompts'))} prompts are nearly the same as others, in {count(similar.get('groups'))} "
            f"groups of up to {count(similar.get('largest'))}; a group stands on one side of the split."
        )
    if number(stats.get("soft_labels")):
        told.append(f"{count(stats.get('soft_labels'))} pairs have a soft label.")
    return told


def _answer_words(stats: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    sizes = _mapping(stats.get("answer_words"))
    total = sum(number(size) or 0 for size in sizes.values())
    rows = [[f"below {limit}", count(size), percent(ratio(size, total))] for limit, size in sizes.items()]
    return ("by length of the answers", ["words", "answers", "of all"], rows)


def _by_dataset(stats: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    rows = []
    for name, value in sorted(_mapping(stats.get("by_dataset")).items()):
        one = _mapping(value)
        rejects = sum(number(rows) or 0 for rows in _mapping(one.get("rejects")).values())
        rows.append([printable(name), count(one.get("rows_in")), count(one.get("pairs_out")), count(rejects)])
    return ("by data set", ["data set", "rows read", "pairs made", "rows rejected"], rows)


def _by_subset(stats: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """Counts per subset, largest first: a number, or numbers by name."""
    counts = {
        printable(name) or "(none)": _mapping(value) or {"pairs": value}
        for name, value in _mapping(stats.get("by_subset")).items()
    }
    keys = list(dict.fromkeys(key for one in counts.values() for key in one))
    ordered = sorted(
        counts.items(), key=lambda item: (-max((number(n) or 0 for n in item[1].values()), default=0), item[0])
    )
    rows = [[name, *(count(one.get(key)) for key in keys)] for name, one in ordered[:LISTED]]
    if len(ordered) > LISTED:
        rows.append([f"... and {len(ordered) - LISTED:,} more", *("" for _ in keys)])
    return ("by subset", ["subset", *(printable(key).replace("_", " ") for key in keys)], rows)


def _part(part: Any, whole: Any) -> str:
    share = percent(ratio(part, whole))
    return count(part) if share == "-" else f"{count(part)} ({share})"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """A nested object as one level of dotted keys; lists and scalars as JSON, strings plain."""
    if isinstance(value, Mapping):
        return {
            key: text
            for name, inner in value.items()
            for key, text in _flat(inner, f"{prefix}.{name}" if prefix else str(name)).items()
        }
    if value is None and not prefix:
        return {}
    text = value if isinstance(value, str) else canonical(value)
    return {printable(prefix): printable(text if len(text) <= LONGEST else text[:LONGEST] + " ... see run.json")}
