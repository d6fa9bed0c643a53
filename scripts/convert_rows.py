"""Make candidate pairs of the rows of a data set, or of one part of it.

    python scripts/convert_rows.py --name hh --settings @settings.json --data results/data/hh/manifest.json \\
        --output results/shards/candidates/hh/all

Leaves the candidates sorted by prompt (see rewardline/candidates.py), `rejects.parquet` with each row that gives none,
and `manifest.json` with the counts.
"""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rewardline.artifacts import canonical, file_sha256, publish, read_json, settings_argument, write_json
from rewardline.candidates import Candidate, CandidateWriter
from rewardline.cli import UserError, log, parser, progress, run, start_logging
from rewardline.formats import FORMATS, OPTIONS, Pair, Reject, converter, detect
from rewardline.identity import position, prompt_identity
from rewardline.pairs import read_part
from rewardline.rejects import RejectWriter

Json = dict[str, Any]
LOOKED_AT = 50  # rows that `format: auto` goes by


def raw_rows(manifest: Path, part: tuple[int, int] = (0, 1)) -> Iterator[Json]:
    """The rows of downloaded data, checked to be as the manifest says; `part` is (index, of how many)."""
    for entry in read_json(manifest)["parts"][part[0] :: part[1]]:
        path = manifest.parent / entry["file"]
        count = 0
        for row in read_part(path):
            yield row
            count += 1
        if count != entry["rows"]:
            raise UserError(f"{path} has {count} rows, not {entry['rows']}; delete {manifest.parent} and run again")


def choose_format(dataset: str, shape: Json, manifest: Path) -> str:
    """The format to read a data set's rows with; `auto` takes the one that fits each of the first rows."""
    if shape["format"] != "auto":
        return str(shape["format"])
    rows = list(islice((row for row in raw_rows(manifest) if row["record"]), LOOKED_AT))
    fits = [detect(json.loads(row["record"]), shape["fields"]) for row in rows]
    certain = {fit for fit in fits if isinstance(fit, str)}
    unclear = [row for row, fit in zip(rows, fits, strict=True) if not isinstance(fit, str)]
    if len(certain) == 1 and 2 * len(unclear) < len(rows):  # a few bad rows become rejects with their reason
        (name,) = certain
        log.info("%s: format %s (%s)", dataset, name, FORMATS[name].description)
        return name
    where = "none of its rows is readable"
    if rows:
        example = (unclear or rows)[0]
        keys = ", ".join(map(str, json.loads(example["record"])))
        where = f"{example['file']}:{example['row']} has the keys {keys}"
    possible = certain | {name for fit in fits if isinstance(fit, list) for name in fit}
    raise UserError(
        f"{dataset}: its format is not clear: {where}. "
        f"Set `format` to one of {', '.join(sorted(possible) or FORMATS)}, or say where its parts stand "
        "with `fields: {prompt: ..., chosen: ..., rejected: ...}`"
    )


class Conversion:
    """Turns rows into candidates, counts them, and keeps what is left out."""

    def __init__(self, dataset: str, shape: Json, writer: CandidateWriter, rejects: RejectWriter) -> None:
        self._dataset, self._shape, self._writer, self._rejects = dataset, shape, writer, rejects
        self.rows_in = 0
        self.left_out: Counter[str] = Counter()
        self.pairs_left_out: Counter[str] = Counter()

    def reject(self, file: str, row: int, reject: Reject) -> None:
        """Count a row that gives no pair."""
        self.left_out[reject.reason] += 1
        self._rejects.add(self._dataset, file, row, reject.reason, reject.detail)

    def add(self, file: str, row: int, rows: int, pairs: list[Pair], skipped: dict[str, int]) -> None:
        """Write the candidates of a row, or of `rows` rows that start with it.

        Raises:
            Reject: all of them lie outside of the data set's share.
        """
        for reason, count in skipped.items():
            self.pairs_left_out[reason] += count
            for _ in range(count):
                self._rejects.add(self._dataset, file, row, reason, "one of the pairs that the row could give")
        low, high = self._shape["share"]
        inside = 0
        for pair in pairs:
            prompt = [{"role": turn["role"], "content": turn["content"]} for turn in pair.prompt]
            prompt_id = prompt_identity(prompt)
            if (low, high) != (0, 1) and not low <= position("share", prompt_id) < high:
                continue
            inside += 1
            subset = self._shape.get("subset") or pair.subset or self._dataset
            self._writer.add(
                Candidate(
                    prompt_id,
                    canonical(prompt),
                    pair.chosen,
                    pair.rejected,
                    pair.margin,
                    getattr(pair, "confidence", 1.0),
                    pair.weight,
                    subset,
                    self._dataset,
                    file,
                    row,
                    rows,
                )
            )
        if not inside:
            raise Reject("outside_share", f"its prompt lies outside the share [{low}, {high}]")


def convert(dataset: str, shape: Json, manifest: Path, part: tuple[int, int], out: Path) -> Json:
    """Write the candidates of a data set's part to `out`; what the manifest says of them."""
    parts = read_json(manifest)["parts"][part[0] :: part[1]]
    total = sum(entry["rows"] for entry in parts)
    name = choose_format(dataset, shape, manifest)
    try:
        read = converter(name, shape["fields"], **{key: shape[key] for key in OPTIONS})
    except UserError as error:
        raise UserError(f"{dataset}: {error}") from None
    writer = CandidateWriter(out, total, sum(entry.get("characters", 0) for entry in parts))
    rejects = RejectWriter(out)
    conversion = Conversion(dataset, shape, writer, rejects)
    with progress(f"{dataset}: rows", total=total) as bar:
        for row in raw_rows(manifest, part):
            conversion.rows_in += 1
            try:
                if row["error"] is not None:
                    raise Reject("unreadable", row["error"])
                pairs = read(json.loads(row["record"]))
                conversion.add(row["file"], row["row"], 1, pairs, pairs.skipped)
            except Reject as reject:
                conversion.reject(row["file"], row["row"], reject)
            bar.update(1)
    writer.close()
    return {
        "dataset": dataset,
        "format": name,
        "rows_in": conversion.rows_in,
        "candidates": writer.rows,
        "characters": writer.characters,
        "rejects": dict(sorted(conversion.left_out.items())),
        "pair_rejects": dict(sorted(conversion.pairs_left_out.items())),
        "reject_examples": rejects.close(),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the stage."""
    options = parser(__doc__)
    options.add_argument("--name", required=True, help="name of the data set")
    options.add_argument("--settings", required=True, help="settings as JSON, or @FILE")
    options.add_argument("--data", required=True, type=Path, help="manifest.json of the downloaded rows")
    options.add_argument("--output", required=True, type=Path, help="folder to make")
    args = options.parse_args(argv)
    start_logging(args.log)
    settings = settings_argument(args.settings)
    index, count = map(int, settings.pop("rows", "0/1").split("/"))
    with publish(args.output) as out:
        facts = convert(args.name, settings, args.data, (index, count), out)
        sha256 = {path.name: file_sha256(path) for path in sorted(out.iterdir())}
        write_json(out / "manifest.json", {**facts, "sha256": sha256})
    left_out = ", ".join(f"{reason} {n}" for reason, n in facts["rejects"].items()) or "nothing"
    log.info("%s: %d rows, %d candidates; left out: %s", args.name, facts["rows_in"], facts["candidates"], left_out)
    return 0


if __name__ == "__main__":
    run(main)
