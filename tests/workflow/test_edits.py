"""What an edit of the code computes again, shown by files that only the computation writes."""

from pathlib import Path

import pytest

from support.project import Project, small

COMPUTED = {
    "encoded": "results/shards/tokens/*/*/*/train-*.arrow",
    "trained": "results/checkpoints/*/*/model/log.jsonl",
    "scored": "results/shards/scores/*/*/*/*.scores",
}
"""Files that are different whenever they are computed: tokens and scores have their date, the log holds times."""
TARGETS = ("results/evals/small/eval/metrics.json", "results/models/small/README.md")
EDITS = {
    "core/progress.py": set(),
    "training/records/templates/model_card.md.jinja": set(),
    "training/records/loggers.py": set(),
    "report/templates/style.css": set(),
    "data/demo/generator.py": set(),
    "tokens/encoder.py": {"encoded"},
    "scoring/batch_scorer.py": {"scored"},
    "training/loss.py": {"trained"},
    "training/engine.py": {"trained"},
    "model/packing/attention.py": {"trained", "scored"},
}
"""What the edit of a file computes again. Equal tokens train nothing again, and equal weights score nothing again."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("edits") / "project")
    project.overlay(small(max_steps=4))
    run(project)
    assert all(files for files in computed(project).values())
    return project


def run(project: Project) -> None:
    project.run("--cores", "2", *TARGETS, "--configfile", "overlay.yaml")


def computed(project: Project) -> dict[str, set[tuple[Path, object]]]:
    files = {name: project.folder.glob(pattern) for name, pattern in COMPUTED.items()}
    return {name: {(path, _content(path)) for path in paths} for name, paths in files.items()}


def _content(path: Path) -> object:
    return path.read_text() if path.suffix == ".jsonl" else path.stat().st_mtime_ns


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_computes_again_what_depends_on_it_and_nothing_else(project: Project, name: str) -> None:
    before = computed(project)
    path = project.folder / "scripts" / "rewardline" / name
    with path.open("a") as stream:
        stream.write("\n# edited\n" if path.suffix == ".py" else "\n")
    run(project)
    after = computed(project)
    assert {kind for kind in COMPUTED if after[kind] != before[kind]} == EDITS[name]
    assert project.planned(*TARGETS, "--configfile", "overlay.yaml") == {}
