"""Messages are complete, and short."""

import pytest
from pydantic import BaseModel, ValidationError

from rewardline.core.errors import first_line, listing, nearest

NAMES = [f"name{k}" for k in range(804)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo", "one"),
        (
            "Error(s) in loading:\n\n\tsize mismatch for a:\n copying b",
            "Error(s) in loading: size mismatch for a: copying b",
        ),
        ("ends with a colon:", "ends with a colon:"),
        ("key: value: more\nrest", "key: value: more"),
        ("", "ValueError"),
    ],
)
def test_a_reason_is_not_cut_at_a_colon(text: str, expected: str) -> None:
    assert first_line(ValueError(text)) == expected


def test_a_list_of_hundreds_of_names_is_cut() -> None:
    text = first_line(ValueError(f"unknown; it should be one of: {', '.join(NAMES)}. See the guide."))
    assert text == "unknown; it should be one of: name0, name1, name2, ... and 800 more, name803. See the guide."
    few = f"one of {', '.join(NAMES[:9])}"
    assert first_line(ValueError(few)) == few


def test_problems_of_settings_are_named_by_key() -> None:
    class Settings(BaseModel):
        size: int

    with pytest.raises(ValidationError) as error:
        Settings.model_validate({"size": "x"})
    assert first_line(error.value).startswith("size: Input should be a valid integer")


def test_the_nearest_of_many_names_are_named() -> None:
    assert nearest("llamma", [*NAMES, "llama", "llama4", "gemma"]).endswith(": llama, llama4, gemma")
    assert nearest("evil", ["eval", "test"]) == "; did you mean eval?"
    assert nearest("xyz", ["eval", "test"]) == "; known: eval, test"
    assert nearest("xyz", []) == "; known: none"
    assert listing(NAMES).endswith("name19 and 784 more")
