from pathlib import Path

import pytest

from rewardline.core.errors import UserError
from rewardline.data.sources.local_files import expand_files


def test_a_path_that_exists_is_no_glob(tmp_path: Path) -> None:
    for name in ("data[1].jsonl", "data1.jsonl", "data2.jsonl"):
        (tmp_path / name).touch()
    assert expand_files([f"{tmp_path}/data[1].jsonl"]) == [f"{tmp_path}/data[1].jsonl"]
    assert expand_files([f"{tmp_path}/data[12].jsonl"]) == [f"{tmp_path}/data{n}.jsonl" for n in (1, 2)]


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; name its files, as in .*\*\.jsonl"):
        expand_files([str(tmp_path)])
    with pytest.raises(UserError, match="matches no file"):
        expand_files([f"{tmp_path}/*.csv"])
    with pytest.raises(UserError, match="does not exist"):
        expand_files([f"{tmp_path}/a.csv"])
