from pathlib import Path

import pytest

from rewardline.core.artifacts import (
    Manifest,
    artifact_key,
    restored,
    verify,
    verify_given,
    verify_model,
    write_manifest,
    write_sealed,
)
from rewardline.core.errors import UserError
from rewardline.core.files import atomic_folder, read_json
from rewardline.core.settings import Settings


class Sizes(Settings):
    a: int = 1


class Rows(Manifest):
    rows: int = 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with atomic_folder(tmp_path / "out") as out:
        (out / "part").mkdir()
        (out / "part" / "x").write_text("x")
        write_manifest(out, Rows(), "k")
    return tmp_path / "out"


def test_work_done_under_its_key_is_not_done_again(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").unlink()
    assert not restored(folder, "other")
    assert not (folder / "manifest.json").exists()
    assert restored(folder, "k")
    assert (folder / "manifest.json").read_bytes() == before
    assert read_json(folder / "manifest.json")["rows"] == 1


def test_the_manifest_may_have_another_name_and_does_not_depend_on_the_key(tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    (tmp_path / "x").write_text("x")
    contents = set()
    for key in ("k", "l"):
        write_manifest(tmp_path, Rows(), key, path.name)
        contents.add(path.read_bytes())
        path.unlink()
        assert restored(tmp_path, key, path.name)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_manifest_is_not_that_of_another_folder(tmp_path: Path) -> None:
    paths = []
    for mixture in ("a", "b"):  # the shards of two mixtures for one model, and the whole
        for name in ("tokens/{}/x", "shards/tokens/{}/x/0"):
            with atomic_folder(tmp_path / name.format(mixture)) as out:
                (out / "part").touch()
                write_manifest(out, Rows(), "k")
            paths.append(tmp_path / name.format(mixture) / "manifest.json")
    contents = [path.read_bytes() for path in paths]
    for path in paths:
        for content in contents:
            path.write_bytes(content)
            if content == contents[paths.index(path)]:
                assert Rows.read(path).rows == 1
                continue
            with pytest.raises(UserError, match=rf"^{path} is damaged \(it is a copy of .*x.*/manifest.json\)"):
                Rows.read(path)
            assert restored(path.parent, "k")
    moved = tmp_path / "results elsewhere"
    (tmp_path / "tokens").rename(moved)
    assert Rows.read(moved / "a" / "x" / "manifest.json").rows == 1, "a project may move"


@pytest.mark.parametrize("damage", ["change", "add", "remove", "manifest", "list"])
def test_work_that_is_not_complete_is_done_again(folder: Path, damage: str) -> None:
    if damage == "change":
        (folder / "part" / "x").write_text("y")
    elif damage == "add":
        (folder / "part" / "y").write_text("y")
    elif damage == "remove":
        (folder / "part" / "x").unlink()
    else:
        (folder / ".manifest.json").write_text("[" if damage == "manifest" else "[]")
    assert not restored(folder, "k")
    assert not restored(folder / "missing", "k")


def test_a_damaged_manifest_is_named_with_its_fault_and_a_remedy(folder: Path) -> None:
    assert Rows.read(folder / "manifest.json").xxh3.keys() == {"part/x"}
    (folder / "manifest.json").write_text('{"rows": "many"}')
    with pytest.raises(UserError, match=r"manifest.json is damaged \(rows: .*integer.*\)\. The same `snakemake"):
        Rows.read(folder / "manifest.json")


def test_every_changed_byte_of_a_manifest_is_noticed(folder: Path) -> None:
    path = folder / "manifest.json"
    before = path.read_bytes()
    for offset in range(len(before)):
        path.write_bytes(before[:offset] + bytes([before[offset] ^ 1]) + before[offset + 1 :])
        with pytest.raises(UserError, match=r"manifest\.json is damaged"):
            Rows.read(path)
        assert not path.exists(), "so that snakemake makes it again"
        assert restored(folder, "k")
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["change", "remove", "add"])
def test_a_file_is_compared_with_its_manifest_and_what_is_linked_with_it_is_made_again(
    folder: Path, tmp_path: Path, damage: str
) -> None:
    other = tmp_path / "other" / "manifest.json"
    other.parent.mkdir()
    other.write_text("{}")
    write_manifest(folder, Rows(), "k", linked=[other])
    verify(folder / "part" / "x")
    verify(tmp_path / "of another origin")
    path = folder / "part" / ("y" if damage == "add" else "x")
    if damage == "remove":
        path.unlink()
    else:
        path.write_text("other")
    with pytest.raises(UserError, match=rf"part/{path.name} is damaged .*snakemake --cores all"):
        verify(path)
    assert not other.exists()
    assert not (folder / "manifest.json").exists()


def test_what_a_user_names_is_compared_with_its_hash_and_nothing_is_removed(folder: Path) -> None:
    path, manifest = folder / "part" / "x", folder / "manifest.json"
    verify_given(path)
    (folder / "own").write_text("a user's own file")
    verify_given(folder / "own")
    path.write_text("y")
    for _ in range(2):
        with pytest.raises(UserError, match=r"part/x is damaged .* put back a copy of it"):
            verify_given(path)
    assert manifest.exists()
    for content in ("of another tool", '{"xxh3": {"part/x": "0"}}'):
        manifest.write_text(content)
        verify_given(path)


def test_a_model_keeps_the_facts_without_which_it_would_be_scored_in_another_way(tmp_path: Path) -> None:
    for name in ("config.json", "README.md"):
        (tmp_path / name).write_text("{}")
    write_sealed(tmp_path / "run.json", {}, ["config.json"])
    assert verify_model(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    for repair in (False, True):
        assert (tmp_path / "README.md").exists(), "scoring removes nothing"
        with pytest.raises(UserError, match=r"config\.json is damaged"):
            verify_model(tmp_path, repair)
    assert (tmp_path / "run.json").exists()
    assert not (tmp_path / "README.md").exists()


def test_a_key_covers_settings_inputs_code_and_versions(tmp_path: Path) -> None:
    (tmp_path / "stage.py").write_text("from rewardline.core import a\nfrom rewardline.low import b\n")
    for name in ("__init__", "core/__init__", "core/a", "low/__init__", "low/b"):
        (tmp_path / "rewardline" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rewardline" / f"{name}.py").write_text("")

    def key(module: str = "stage.py", **changes: int) -> str:
        return artifact_key(Sizes(a=changes.get("a", 1)), {"x": changes.get("x", 1)}, tmp_path / module, ["numpy"])

    first = key()
    assert first == key() != key(a=2) != key(x=2)
    (tmp_path / "again.py").write_text("from rewardline.core import a\nfrom rewardline.low import b\n")
    assert key("again.py") != first


def test_modules_of_core_change_no_key(tmp_path: Path) -> None:
    from rewardline.core.provenance import code_digest

    for folder, (core, low) in {"one": ("", ""), "two": ("x = 1", ""), "three": ("", "x = 1")}.items():
        files = {"__init__": "", "core/__init__": "", "core/a": core, "low/__init__": "", "low/b": low}
        for name, text in files.items():
            path = tmp_path / folder / "rewardline" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (tmp_path / folder / "s.py").write_text("from rewardline.core import a\nfrom rewardline.low import b\n")
    one, two, three = (code_digest(tmp_path / name / "s.py", without=["core"]) for name in ("one", "two", "three"))
    assert one == two != three
