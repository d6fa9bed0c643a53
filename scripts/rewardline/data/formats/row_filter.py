"""Which rows of a data set are used."""

from collections.abc import Callable, Mapping
from typing import Any

from rewardline.data.conversation import Reject
from rewardline.data.formats.fields import Record, steps_of, walk
from rewardline.data.formats.options import code, codes


def filtering(where: Mapping[str, Any]) -> Callable[[Record], Record]:
    """What lets a row pass that has the value, or one of a list of values, at each path of `where`.

    Raises `UserError` for a bad path; the function raises `Reject` (`filtered`, or `missing_field`). Values are equal
    as codes are: 1, 1.0 and "1" are one, and case does not count.
    """
    wanted = {path: set(codes(values)) for path, values in where.items()}
    for path in wanted:
        steps_of(path)

    def read(record: Record) -> Record:
        for path, allowed in wanted.items():
            if (found := code(walk(record, path))) not in allowed:
                raise Reject("filtered", f"{path} is {found[:50]!r}")
        return record

    return read
