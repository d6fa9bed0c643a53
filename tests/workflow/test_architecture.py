"""The structure of the code: what tools do not check by themselves."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rewardline.core.provenance import program_files

from support.paths import ROOT, SCRIPTS

LIBRARY = SCRIPTS / "rewardline"
MODULES = sorted(LIBRARY.rglob("*.py"))
PROGRAMS = sorted(SCRIPTS.glob("*.py"))
MOST_MODULES = {
    "audit_labels.py": 22,
    "average_weights.py": 42,
    "base_model.py": 22,
    "build_pairs.py": 19,
    "augment_pairs.py": 23,
    "build_probes.py": 21,
    "choose_pairs.py": 45,
    "clean_pairs.py": 25,
    "collect_scores.py": 44,
    "compare.py": 33,
    "convert_rows.py": 43,
    "download.py": 26,
    "download_file.py": 24,
    "evaluate.py": 69,
    "evaluate_ensemble.py": 43,
    "evaluation_card.py": 17,
    "export_ensemble.py": 13,
    "fetch_file.py": 16,
    "gate.py": 13,
    "generate_demo.py": 18,
    "group_prompts.py": 25,
    "halve.py": 10,
    "index_joins.py": 20,
    "join_tokens.py": 17,
    "plot.py": 49,
    "publish.py": 22,
    "relabel_pairs.py": 20,
    "score.py": 63,
    "score_benchmark.py": 42,
    "score_rows.py": 59,
    "select_model.py": 36,
    "serve.py": 62,
    "split_fold.py": 20,
    "summarize.py": 28,
    "tokenize_pairs.py": 29,
    "track.py": 20,
    "train.py": 66,
}
"""How many modules of the library each program may import, directly or not: a new import cannot widen it unnoticed."""


COMPUTING = {
    "average_weights.py",
    "base_model.py",
    "evaluate.py",
    "score.py",
    "score_benchmark.py",
    "score_rows.py",
    "serve.py",
    "train.py",
}
"""Programs that compute with weights, the only ones that may wait for seconds until torch is imported."""


@pytest.mark.parametrize(
    "program", [path for path in PROGRAMS if path.name not in COMPUTING], ids=lambda path: path.name
)
def test_other_programs_never_import_torch(program: Path) -> None:
    """Nor does any module that they import, directly or not, at the start or later."""
    for path in (path for path in program_files(program) if path.suffix == ".py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"torch", "deepspeed", "peft"}, path


def test_no_program_imports_torch_before_it_has_read_its_options() -> None:
    """In one process, which none of the programs leaves as `--help` ends them before they compute."""
    code = """
import contextlib, io, runpy, sys
for program in sys.argv[1:]:
    sys.argv = [program, "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(program, run_name="__main__")
    assert not {"torch", "deepspeed"} & sys.modules.keys(), program
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, PROGRAMS)], cwd=SCRIPTS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_packages_are_one_docstring_line() -> None:
    for path in LIBRARY.rglob("__init__.py"):
        (statement,) = ast.parse(path.read_text()).body
        assert isinstance(statement, ast.Expr) and len(path.read_text().splitlines()) == 1, path


def test_folders_hold_no_more_than_a_reader_takes_in() -> None:
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    names: dict[Path, set[str]] = {}
    for path in map(Path, listing.stdout.splitlines()):
        for depth in range(len(path.parts) if (ROOT / path).exists() else 0):
            names.setdefault(Path(*path.parts[:depth]), set()).add(path.parts[depth])
    full = {str(folder) for folder, own in names.items() if len(own - {"__init__.py"}) > 20}
    # scripts has a program for each rule, and the root the files that tools look for there.
    assert full == {"scripts", "."}


def test_no_module_has_the_name_of_one_of_the_standard_library() -> None:
    assert not {path.stem for path in (*MODULES, *PROGRAMS)} & set(sys.stdlib_module_names)


def test_no_module_repeats_the_name_of_its_package() -> None:
    for path in MODULES:
        package = path.parent.name.rstrip("s")
        assert not path.stem.startswith(f"{package}_"), path


def test_public_classes_have_names_of_their_own() -> None:
    classes: Counter[str] = Counter()
    for path in MODULES:
        names = (node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef))
        classes.update(name for name in names if not name.startswith("_"))
    assert not [name for name, count in classes.items() if count > 1]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_programs_are_command_lines(program: Path) -> None:
    assert len(program.read_text().splitlines()) <= 80
    modules = [path for path in program_files(program) if path in MODULES and path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES[program.name]
