import subprocess
import sys
import time
from pathlib import Path

import pytest

from rewardline.core.cli import parse_settings
from rewardline.core.errors import UserError
from rewardline.core.files import atomic_folder, read_json, write_json
from rewardline.core.hashing import canonical
from rewardline.core.locks import exclusive
from rewardline.core.settings import Settings

from support.paths import SCRIPTS


def test_a_folder_replaces_the_old_one_completely(tmp_path: Path) -> None:
    target = tmp_path / "artefact"
    with atomic_folder(target) as out:
        (out / "a").write_text("1")
    with atomic_folder(target) as out:
        (out / "b").write_text("2")
        assert (target / "a").exists()
    assert [path.name for path in target.iterdir()] == ["b"]


def test_failure_leaves_the_old_artefact_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "artefact"
    with atomic_folder(target) as out:
        (out / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(target) as out:
        (out / "b").write_text("2")
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["a"]
    assert not list(tmp_path.glob(".*partial*"))


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    leftover = tmp_path / ".artefact.partial"
    leftover.mkdir()
    (leftover / "half").write_text("x")
    with atomic_folder(tmp_path / "artefact") as out:
        assert not list(out.iterdir())


HOLDER = """
import sys, time
from pathlib import Path
from rewardline.core.locks import exclusive
from rewardline.core.settings import Settings
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_is_waited_for_and_freed_by_a_kill(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, cwd=SCRIPTS, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
        begin = time.monotonic()
        with exclusive(lock):
            assert time.monotonic() - begin < 10


def test_canonical_json_ignores_the_order_of_keys() -> None:
    assert canonical({"b": 1, "a": {"d": 1, "c": 2}}) == canonical({"a": {"c": 2, "d": 1}, "b": 1})
    assert canonical({"epochs": 1, "batch": 2}) != canonical({"epochs": 2, "batch": 1})


def test_damaged_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(UserError, match=r"x\.json does not exist"):
        read_json(path)
    path.write_text("{")
    with pytest.raises(UserError, match=r"x\.json is damaged"):
        read_json(path)
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}


class Sizes(Settings):
    a: int
    b: int = 2


def test_settings_are_typed_and_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}')
    assert parse_settings(Sizes, f"@{path}") == parse_settings(Sizes, '{"a": 1, "b": 2}') == Sizes(a=1)
    for text, expected in (
        ("{", "JSON"),
        ('{"a": "x"}', "a:"),
        ('{"a": 1, "c": 1}', "c:"),
        ("{}", "a: Field required"),
    ):
        with pytest.raises(UserError, match=f"--settings are not those of this stage: .*{expected}"):
            parse_settings(Sizes, text)
