from pathlib import Path

from rewardline.code import program_digest, program_files

SCRIPTS = Path(__file__).parents[2] / "scripts"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(root: Path, program: str) -> set[str]:
    program_files.cache_clear()
    return {str(path.relative_to(root)) for path in program_files(root / program)}


def test_imports_are_followed_transitively_and_into_functions(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "stage.py": "import json\nfrom rewardline.a import f\n",
            "rewardline/__init__.py": "",
            "rewardline/a.py": "def f():\n    from rewardline import b\n",
            "rewardline/b.py": "import rewardline.c\n",
            "rewardline/c.py": "import numpy\n",
            "rewardline/unused.py": "",
        },
    )
    expected = {"stage.py", "rewardline/__init__.py", "rewardline/a.py", "rewardline/b.py", "rewardline/c.py"}
    assert names(tmp_path, "stage.py") == expected


def test_digest_depends_on_content_alone(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(tmp_path / folder, {"stage.py": "from rewardline import a\n", "rewardline/a.py": "x = 1\n"})
    program_files.cache_clear()
    first = program_digest(tmp_path / "one" / "stage.py")
    assert program_digest(tmp_path / "two" / "stage.py") == first
    (tmp_path / "two" / "rewardline" / "a.py").write_text("x = 2\n")
    assert program_digest(tmp_path / "two" / "stage.py") != first


def test_stages_do_not_depend_on_each_other() -> None:
    files = {path.name for path in program_files(SCRIPTS / "tokenize_pairs.py")}
    assert "tokenization.py" in files
    assert not files & {"trainer.py", "config.py", "train.py", "readers.py"}


def test_no_stage_reads_the_whole_configuration() -> None:
    for program in SCRIPTS.glob("*.py"):
        assert SCRIPTS / "rewardline" / "config.py" not in program_files(program), program.name
