"""Scores of the rows of a dataset, one of several shards at a time; a killed job resumes after its last part.

The parts are runs of rows that are the same for any number of shards, and are computed by themselves. So the scores do
not depend on the shards.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from rewardline.core.artifacts import artifact_key, make_folder, read_manifest
from rewardline.core.gpus import gpu_names
from rewardline.core.hashing import canonical, digest, file_sha256
from rewardline.core.progress import progress
from rewardline.core.settings import JsonObject
from rewardline.data.parquet import PartWriter
from rewardline.data.schema import arrow_schema
from rewardline.data.stored_rows import StoredDataset, StoredRow, read_row_range
from rewardline.scoring.parts import FinishedParts, share_of, verified_weights
from rewardline.scoring.results import RowScores, ScoredRows
from rewardline.scoring.rows import PromptAnswers, UnscorableError, chunks, columns, parse_row
from rewardline.scoring.settings import ScoringSettings
from rewardline.scoring.stage_settings import RowsSettings

if TYPE_CHECKING:
    from rewardline.scoring.text_scorer import Scorer

log = logging.getLogger(__name__)
PART_ROWS = 256
"""Rows of a part."""
_CUT = b"cut"


def score_rows(
    settings: RowsSettings, data: Path, model: Path, parts: Path, batch_tokens: int, processes: int, output: Path
) -> None:
    """Score a shard of the rows of a dataset, unless its folder `output` is there and nothing has changed.

    `data`: its manifest; `parts`: a folder for finished parts, the same for all shards. `processes`: how many hold
    the model together, see `partitioned.processes_for`.

    Raises:
        UserError: the model cannot be used, or a file is missing or damaged.
    """
    device: Literal["cpu", "cuda"] = "cuda" if gpu_names() else "cpu"
    scoring = ScoringSettings(
        batch_tokens=batch_tokens,
        trust_remote_code=settings.trust_remote_code,
        threads=settings.threads,
        device=device,
    )
    weights = verified_weights(model)
    patterns = ("config.json", "tokenizer*", "*.jinja", "*.model", "*.py")
    files = {path.name: file_sha256(path) for pattern in patterns for path in sorted(model.glob(pattern))}
    tokenization = read_manifest(model / "run.json").get("tokenization")
    reads_names = isinstance(tokenization, dict) and bool(tokenization.get("reads_names"))
    inputs: JsonObject = {
        "weights": weights,
        "model": {**files},
        "tokenization": canonical(tokenization),
        "rows": file_sha256(data),
    }
    key = artifact_key(scoring, inputs, Path(__file__), ("torch", "transformers", "tokenizers", "numpy"))
    finished = FinishedParts(parts, key)
    load = partial(_load, model, scoring, processes)
    shard = digest(canonical([key, settings.shard, settings.shards]))
    make_folder(output, shard, partial(_score_shard, settings, data, load, finished, reads_names))
    finished.delete_others()


def _score_shard(
    settings: RowsSettings,
    data: Path,
    load: "Callable[[], Scorer]",
    finished: FinishedParts,
    reads_names: bool,
    out: Path,
) -> ScoredRows:
    rows = StoredDataset.read(data).rows
    own = share_of(-(-rows // PART_ROWS), settings.shard, settings.shards)
    first, end = own.start * PART_ROWS, min(rows, own.stop * PART_ROWS)
    writer = PartWriter[RowScores](out, arrow_schema(RowScores))
    names: set[str] = set()
    cut = 0
    scorer: Scorer | None = None
    rows_left: Iterator[StoredRow] = iter(())  # read once, from the first part that is not finished
    position = end
    with progress(f"score {settings.name}", total=end - first, unit="row") as bar:
        for number in own:
            content = finished.load(number)
            if content is None:
                if scorer is None:
                    log.info("%d rows, %d parts are finished", end - first, number - own.start)
                    scorer = load()
                    position = number * PART_ROWS
                    rows_left = read_row_range(data, position, end)
                skipped = number * PART_ROWS - position
                part = list(islice(rows_left, skipped, skipped + PART_ROWS))
                position += skipped + len(part)
                content = _encoded(*_scored(scorer, part))
                finished.save(number, content)
            table = pa.ipc.open_stream(content).read_all()
            facts = json.loads(table.schema.metadata[_CUT])
            names.update(facts["names"])
            cut += facts["cut"]
            for row in table.to_pylist():
                writer.add(RowScores(**row))
            bar.update(len(table))
    log.info("%d rows have scores or a reason why not", end - first)
    return ScoredRows(rows=end - first, names=sorted(names), cut=cut, reads_names=reads_names, parts=writer.close())


def _load(model: Path, settings: ScoringSettings, processes: int) -> "Scorer":
    from rewardline.scoring.text_scorer import Scorer, open_scorer

    make = partial(Scorer, str(model), batch_tokens=settings.batch_tokens, trust_remote_code=settings.trust_remote_code)
    return open_scorer(model, make, processes=processes)


def _scored(scorer: "Scorer", rows: Sequence[StoredRow]) -> tuple[list[RowScores], set[str], int]:
    """The scores of rows, the names of these, and the number of prompts that lost their beginning."""
    before = scorer.cut
    names: set[str] = set()
    results: list[RowScores] = []
    for chunk in chunks(rows):
        parsed = [parse_stored(row, scorer.reads_names) for row in chunk]
        good = [row for row in parsed if isinstance(row, PromptAnswers)]
        scored = iter(scorer.score(*columns(good)))
        for item in parsed:
            found = next(scored) if isinstance(item, PromptAnswers) else item
            if isinstance(item, PromptAnswers):
                names.update(item.names)
            if isinstance(found, UnscorableError):
                results.append(RowScores(None, found.reason, str(found)))
            else:
                results.append(RowScores(found, None, None))
    return results, names, scorer.cut - before


def parse_stored(row: StoredRow, reads_names: bool) -> PromptAnswers | UnscorableError:
    """The prompt and the answers of a stored row, or why it cannot be scored."""
    if row.record is None:
        return UnscorableError(row.error or "", "unreadable")
    try:
        return parse_row(json.loads(row.record), reads_names)
    except UnscorableError as error:
        return error


def _encoded(rows: Sequence[RowScores], names: set[str], cut: int) -> bytes:
    facts = json.dumps({"names": sorted(names), "cut": cut})
    schema = arrow_schema(RowScores).with_metadata({_CUT: facts})
    columns = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in schema]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    content: bytes = sink.getvalue().to_pybytes()
    return content
