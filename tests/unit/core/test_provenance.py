import re
from pathlib import Path

import pytest

from rewardline.core import provenance
from rewardline.core.provenance import ImportStatementError, code_digest, program_files

from support.paths import SCRIPTS


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(root: Path, program: str) -> set[str]:
    return {str(path.relative_to(root)) for path in program_files(root / program)}


PACKAGES = {
    "rewardline/__init__.py": "",
    "rewardline/low/__init__.py": "",
    "rewardline/low/deep/__init__.py": "",
    "rewardline/high/__init__.py": "",
}
INITS = {"rewardline/__init__.py", "rewardline/low/__init__.py", "rewardline/low/deep/__init__.py"}


def test_imports_are_followed_transitively_and_into_functions(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            **PACKAGES,
            "stage.py": "import json\nfrom rewardline.a import f\n",
            "rewardline/a.py": "def f():\n    from rewardline import b\n",
            "rewardline/b.py": "import rewardline.c\n",
            "rewardline/c.py": "import numpy\n",
            "rewardline/unused.py": "",
        },
    )
    expected = {"stage.py", "rewardline/__init__.py", "rewardline/a.py", "rewardline/b.py", "rewardline/c.py"}
    assert names(tmp_path, "stage.py") == expected


def test_packages_below_packages_are_followed_from_programs_and_from_modules(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            **PACKAGES,
            "stage.py": "from rewardline.low.deep.a import f\n",
            "rewardline/low/deep/a.py": "from rewardline.low.deep import b\n",
            "rewardline/low/deep/b.py": "import rewardline.low.c\n",
            "rewardline/low/c.py": "",
            "rewardline/high/unused.py": "",
        },
    )
    modules = {"rewardline/low/deep/a.py", "rewardline/low/deep/b.py", "rewardline/low/c.py"}
    assert names(tmp_path, "stage.py") == {"stage.py", *INITS, *modules}
    assert names(tmp_path, "rewardline/low/deep/a.py") == {*INITS, *modules}


def test_imports_for_type_checkers_alone_do_not_count(tmp_path: Path) -> None:
    condition = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rewardline import a\n"
    stage = condition + "else:\n    from rewardline import b\n"
    write(tmp_path, {**PACKAGES, "stage.py": stage, "rewardline/a.py": "", "rewardline/b.py": ""})
    assert names(tmp_path, "stage.py") == {"stage.py", "rewardline/__init__.py", "rewardline/b.py"}


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("from rewardline.a import (\n    x,\n    y,\n)  # both\n", "a"),
        ("from rewardline.a import (\n    x,  # (first)\n)\n", "a"),
        ("from rewardline.a import x; import rewardline.b\n", "ab"),
        ("import os, rewardline.a\nimport rewardline.b as c, rewardline.a\n", "ab"),
        ("from rewardline import a, \\\n    b\n", "ab"),
        ("if __name__: from rewardline import a\n", "a"),
        ("import\\\n  rewardline.a\nfrom rewardline import b\n", "ab"),
        ("try:\n    import rewardline.a\nexcept ImportError:\n\tfrom rewardline import b\n", "ab"),
        ('"""Usage:\n\n    from rewardline import a\n"""\nfrom rewardline import b\n', "b"),
        ('"""Comes from rewardline; import it."""\nfrom rewardline import b\nx = "from rewardline import a"\n', "b"),
        ("# import rewardline.a\nfrom rewardline import b  # not a\n", "b"),
        ("import typing\nif typing.TYPE_CHECKING:\n    import rewardline.a\n\nfrom rewardline import b\n", "b"),
        ("def f():\n    if TYPE_CHECKING:\n        import rewardline.a\n    from rewardline import b\n", "b"),
        ("if not TYPE_CHECKING:\n    import rewardline.a\n", "a"),
        ("import rewardline_other\nfrom rewardline2.a import x\nimport rewardline.a\n", "a"),
    ],
)
def test_imports_are_found_however_they_are_written(tmp_path: Path, text: str, used: str) -> None:
    write(tmp_path, {**PACKAGES, "stage.py": text, "rewardline/a.py": "", "rewardline/b.py": ""})
    expected = {"stage.py", "rewardline/__init__.py", *(f"rewardline/{name}.py" for name in used)}
    assert names(tmp_path, "stage.py") == expected


def test_imports_are_those_of_completely_parsed_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usually, only the lines with imports are parsed."""
    paths = sorted(SCRIPTS.rglob("*.py"))
    found = [provenance._used_files.__wrapped__(path, SCRIPTS) for path in paths]
    monkeypatch.setattr(provenance, "_IMPORT", re.compile("(?!)"))
    assert found == [provenance._used_files.__wrapped__(path, SCRIPTS) for path in paths]


@pytest.mark.parametrize("statement", ["from . import a", "from .a import x", "from .. import a"])
def test_relative_imports_are_refused(tmp_path: Path, statement: str) -> None:
    write(tmp_path, {**PACKAGES, "rewardline/low/a.py": "", "rewardline/low/b.py": f"\n{statement}\n"})
    with pytest.raises(ImportStatementError, match=r"b\.py:2: relative import"):
        program_files(tmp_path / "rewardline" / "low" / "b.py")


@pytest.mark.parametrize("statement", ["import rewardline.low", "from rewardline import low"])
def test_a_package_imported_in_place_of_a_module_is_refused(tmp_path: Path, statement: str) -> None:
    write(tmp_path, {**PACKAGES, "rewardline/low/a.py": "", "stage.py": f"import os\n\n{statement}\nlow.a.x\n"})
    with pytest.raises(ImportStatementError, match=r"stage\.py:3: imports a package"):
        program_files(tmp_path / "stage.py")


def test_templates_count_for_the_modules_that_name_their_folder(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            **PACKAGES,
            "rewardline/low/page.py": 'from pathlib import Path\nPath(__file__).with_name("templates")\n',
            "rewardline/low/other.py": "",
            "rewardline/low/templates/page.html.jinja": "",
            "rewardline/low/templates/parts/style.css": "",
        },
    )
    templates = {"rewardline/low/templates/page.html.jinja", "rewardline/low/templates/parts/style.css"}
    assert templates <= names(tmp_path, "rewardline/low/page.py")
    assert not templates & names(tmp_path, "rewardline/low/other.py")
    program = tmp_path / "rewardline" / "low" / "page.py"
    before = code_digest(program)
    (tmp_path / "rewardline/low/templates/parts/style.css").write_text("a {}")
    assert code_digest(program) != before


def test_digest_depends_on_content_and_on_paths_below_the_root_alone(tmp_path: Path) -> None:
    files = {**PACKAGES, "stage.py": "from rewardline import a\n", "rewardline/a.py": "x = 1\n"}
    write(tmp_path / "one", files)
    write(tmp_path / "two" / "three", files)
    first = code_digest(tmp_path / "one" / "stage.py")
    assert code_digest(tmp_path / "two" / "three" / "stage.py") == first
    (tmp_path / "two" / "three" / "rewardline" / "a.py").write_text("x = 2\n")
    assert code_digest(tmp_path / "two" / "three" / "stage.py") != first


def test_digest_tells_modules_of_one_name_apart(tmp_path: Path) -> None:
    """Two modules that swap their content, in packages of their own, are another program."""
    stage = "from rewardline.low import a\nfrom rewardline.high import a as b\n"
    for folder, (low, high) in {"one": ("x = 1", "x = 2"), "two": ("x = 2", "x = 1")}.items():
        modules = {"rewardline/low/a.py": low, "rewardline/high/a.py": high}
        write(tmp_path / folder, {**PACKAGES, "stage.py": stage, **modules})
    assert code_digest(tmp_path / "one" / "stage.py") != code_digest(tmp_path / "two" / "stage.py")


def test_digest_of_several_programs_counts_each_file_once(tmp_path: Path) -> None:
    write(tmp_path, {**PACKAGES, "a.py": "from rewardline import x\n", "b.py": "", "rewardline/x.py": ""})
    one, two = tmp_path / "a.py", tmp_path / "b.py"
    assert code_digest(one, two) == code_digest(two, one) == code_digest(two, one, one) != code_digest(one)


def modules(program: str) -> set[str]:
    folder = SCRIPTS / "rewardline"
    files = program_files(SCRIPTS / program)
    return {path.relative_to(folder).as_posix() for path in files if path.is_relative_to(folder)}


def test_stages_do_not_depend_on_each_other() -> None:
    found = {name.partition("/")[0] for name in modules("tokenize_pairs.py")}
    assert "tokens" in found
    assert not found & {"workflow", "model", "training", "scoring", "evaluation", "report"}


def test_no_stage_reads_the_whole_configuration() -> None:
    for program in SCRIPTS.glob("*.py"):
        assert not any(name.startswith("workflow/") for name in modules(program.name)), program.name
