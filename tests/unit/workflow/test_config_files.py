"""Names in configuration files are what is written there, and a key that is given twice is an error."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewardline.workflow.config import Config
from rewardline.workflow.config_files import RepeatedKeyError, written_text
from rewardline.workflow.resolve import ConfigError, resolve
from rewardline.workflow.runs import run_table


def read(folder: Path, *texts: str) -> Config:
    """The configuration of files of which each later one extends the others, as in Snakemake."""
    merged: dict[Any, Any] = {}
    paths = []
    for number, text in enumerate(texts):
        paths.append(folder / f"{number}.yaml")
        paths[-1].write_text(text)
        _update(merged, yaml.load(text, yaml.FullLoader))
    return resolve(merged, written=written_text(paths))


def _update(old: Any, new: Any) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            _update(old[key], value)
        else:
            old[key] = value


@pytest.mark.parametrize(
    "name", ["2024", "010", "1e3", "1_0", "1.50", "no", "Off", "true", "2024-01-02", "0x1F", "null"]
)
def test_a_name_is_what_is_written(tmp_path: Path, name: str) -> None:
    text = f"""
    datasets: {{{name}: {{files: [{name}], join: {{a: {{dataset: {name}, key: {name}}}}}}}}}
    mixtures: {{{name}: {{datasets: {{{name}: 0.5}}}}}}
    models: {{{name}: {{path: a/b, revision: {name}, trust_remote_code: no}}}}
    benchmarks: {{b{name}: {{demo: {{}}}}}}
    runs:
      {name}: {{mixture: {name}, model: {name}, benchmarks: [b{name}], seeds: [0, 1]}}
      e{name}: {{ensemble: [{name}]}}
    """
    if name == "null":  # as a value, it stands for none
        text = text.replace("mixture: null", "mixture: 'null'").replace("model: null", "model: 'null'")
        text = text.replace("[null]", "['null']").replace("dataset: null, key: null", "dataset: 'null', key: a")
    config = read(tmp_path, text)
    assert list(config.datasets) == list(config.mixtures) == list(config.models) == [name]
    assert config.datasets[name].files == [name]
    assert config.mixtures[name].datasets[name].weight == 0.5
    assert config.models[name].revision == ("main" if name == "null" else name)
    assert config.models[name].trust_remote_code is False, "what must be true or false is read as YAML reads it"
    assert [run.run_id for run in run_table(config)] == [f"{name}-seed0", f"{name}-seed1"]


START = "datasets: {d: {files: [a]}}\nmodels: {x: {path: a/b}}\nruns: {r: {mixture: no, model: x}}\n"


def test_later_files_extend_a_name_however_it_is_written(tmp_path: Path) -> None:
    first = START + "mixtures: {no: {datasets: {d: 1}, seed: 5}, 07: {datasets: {d: 1}}}\n"
    config = read(tmp_path, first, "mixtures: {'no': {eval_fraction: 0.3}, 07: {seed: 6}}\nruns: {r: {mixture: 07}}\n")
    assert (config.mixtures["no"].seed, config.mixtures["no"].eval_fraction) == (5, 0.3)
    assert (config.mixtures["07"].seed, config.runs["r"].mixture) == (6, "07")


def test_a_wrong_name_is_shown_as_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runs.r.mixture: 'off' is not defined; .* no"):
        read(tmp_path, START + "mixtures: {no: {datasets: {d: 1}}}\n", "runs: {r: {mixture: off}}")
    with pytest.raises(ConfigError, match=r"runs.r.seeds.0: .*integer"):
        read(tmp_path, START + "mixtures: {no: {datasets: {d: 1}}}\n", "runs: {r: {seeds: [no]}}")


def test_labels_are_what_is_written(tmp_path: Path) -> None:
    keys = (
        "values: {good: [yes, true, 1], bad: [no, ~, 010]}, where: {day: 2024-01-01, s: 1.0, at: [12:30, +1], on: off}"
    )
    start = START + "mixtures: {no: {datasets: {d: 1}}}\n"
    entry = read(tmp_path, start, "datasets: {d: {fields: {answers: [1, b]}, " + keys + "}}").datasets["d"]
    assert entry.values == {"good": ["yes", True, 1], "bad": ["no", None, "010"]}
    assert entry.where == {"day": "2024-01-01", "s": 1.0, "at": ["12:30", 1], "on": "off"}
    assert entry.fields["answers"] == "[1, b]"
    merged = yaml.safe_load(start.replace("no", "main"))
    merged["datasets"]["d"]["values"] = {"good": 1, "bad": 0}
    given = resolve(merged, written=written_text([tmp_path / "1.yaml"]))
    assert given.datasets["d"].values == {"good": 1, "bad": 0}, "as given with --config"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"c.yaml, line 3: a is given already in line 1"),
        ("datasets:\n  x: {files: [a]}\n  y: {}\n  x: {hub: b}\n", "line 4: datasets.x is given already in line 2"),
        ("runs: {r: {training: {clip: 1,\n  clip: 2}}}", "line 2: runs.r.training.clip is given already in line 1"),
        ("m:\n  no: 1\n  off: 2\n", "line 3: m.off is given already in line 2"),  # both are False
        ("m:\n  1: a\n  '1': b\n", "line 3: m.1 is given already in line 2"),
        ("m: [{a: 1}, {a: 1,\n a: 2}]", "line 2: m.1.a"),
        ('{"a": 1,\n\t"a": 2}', "line 2: a is given already in line 1"),
        ("m:\n  x: &x {y: 1,\n    z: *x}\n", "c.yaml, line 2: an alias is inside of what it repeats"),
        ("m: &m\n  <<: *m\n", "an alias is inside"),
        ("m: &m [1, [*m]]\n", "an alias is inside"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(RepeatedKeyError, match=message):
        written_text([path])


def test_anchors_json_and_templates_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("x: &x {a: 1, b: no}\ny: {<<: *x, a: 2}\nz: *x\n")
    of_a = {("x", "a"): "1", ("y", "a"): "2", ("z", "a"): "1"}
    assert written_text([path]).values == {(key, "b"): "no" for key in "xyz"} | of_a
    path.write_text(json.dumps({"a": {"b": 1}}, indent="\t"))
    assert written_text([path]).values == {("a", "b"): "1"}
    path.write_text("__use_yte__: true\n?if True:\n  a: 1\n?if False:\n  a: 2\n")
    assert written_text([path]).values == {}
    path.write_text("")
    assert written_text([path]).values == {}
