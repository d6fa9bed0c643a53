"""Configuration files as they are written: names that YAML reads as numbers or truth values, and keys given twice."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import yaml

Place = tuple[object, ...]
"""The keys on the way to a value; of a list, the index."""
_YTE, _MERGE = "__use_yte__", "tag:yaml.org,2002:merge"


class WrittenText(NamedTuple):
    """What configuration files have in place of values that are not text, such as `010` or `no`.

    `keys`: the text of keys by place, with all keys as YAML reads them; `values`: that of values, with keys as written.
    """

    keys: dict[Place, str]
    values: dict[Place, str]


class RepeatedKeyError(Exception):
    """A key given twice, of which YAML takes the last without a word, or a value that is a part of itself."""


def written_text(paths: Iterable[Path]) -> WrittenText:
    """What is written in configuration files; the last file counts.

    Raises:
        RepeatedKeyError: a mapping has two keys that are equal as YAML reads them, or as they are written (1 and "1"),
            or an alias is inside of what it repeats.
    """
    result = WrittenText({}, {})
    for path in paths:
        text = path.read_text(encoding="utf-8-sig")
        with suppress(ValueError):
            json.loads(text)
            text = text.expandtabs()  # which JSON allows between values, and YAML does not
        loader = yaml.FullLoader(text)
        try:
            root = loader.get_single_node()
            top = root.value if isinstance(root, yaml.MappingNode) else []
            if all(key.value != _YTE for key, _ in top):  # a template, whose text is not that of the configuration
                _refuse_cycles(root, path, ())
                _read(loader, root, path, (), (), result)
        finally:
            loader.dispose()
    return result


def _refuse_cycles(node: yaml.Node | None, file: Path, above: tuple[yaml.Node, ...]) -> None:
    parts = node.value if isinstance(node, yaml.SequenceNode) else [item for _, item in _entries(node)]
    if node is None or not parts:
        return
    if any(node is each for each in above):
        line = above[-1].start_mark.line + 1
        raise RepeatedKeyError(f"{file.name}, line {line}: an alias is inside of what it repeats; remove it")
    for part in parts:
        _refuse_cycles(part, file, (*above, node))


def _read(
    loader: yaml.FullLoader, node: yaml.Node | None, file: Path, place: Place, names: Place, result: WrittenText
) -> None:
    """Add what a node has; `place` has its keys as YAML reads them, `names` as written."""
    if isinstance(node, yaml.ScalarNode) and not isinstance(loader.construct_object(node), str):
        result.values[names] = node.value
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _read(loader, item, file, (*place, index), (*names, index), result)
    lines: dict[object, int] = {}
    for key_node, item in _entries(node):
        if key_node.tag == _MERGE:
            for part in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                _read(loader, part, file, place, names, result)
            continue
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        name = key if isinstance(key, str) else key_node.value
        if first := lines.get(key) or lines.get(name):
            where = ".".join(map(str, (*names, name)))
            raise RepeatedKeyError(f"{file.name}, line {line}: {where} is given already in line {first}; keep one")
        lines[key] = lines[name] = line
        if not isinstance(key, str):
            result.keys[(*place, key)] = name
        _read(loader, item, file, (*place, key), (*names, name), result)


def _entries(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    return iter(node.value if isinstance(node, yaml.MappingNode) else ())


def with_written_keys(value: object, written: WrittenText, place: Place = ()) -> object:
    """A configuration with all keys as text, as they are written."""
    if isinstance(value, list):
        return [with_written_keys(item, written, (*place, index)) for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    result: dict[str, object] = {}
    for key, item in value.items():
        name = key if isinstance(key, str) else written.keys.get((*place, key), str(key))
        result[name] = _merged(result.get(name), with_written_keys(item, written, (*place, key)))
    return result


def _merged(old: object, new: object) -> object:
    """As Snakemake merges files: a name may stand as text in one and as a number in another."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {**old, **{key: _merged(old.get(key), item) for key, item in new.items()}}
