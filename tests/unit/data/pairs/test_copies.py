"""Copies of prompts, and what only looks like one: what the split keeps together, and what decontamination finds."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest

from rewardline.data.pairs.candidates import CandidateWriter, prompt_words
from rewardline.data.pairs.decontamination import BenchmarkPrompts
from rewardline.data.pairs.grouping import group_prompts
from rewardline.data.pairs.identity import prompt_identity
from rewardline.data.pairs.prompt_groups import PromptGroups
from rewardline.data.pairs.settings import Decontamination, GroupSettings
from rewardline.data.schema import Message

from support.pairs import candidate, candidates_manifest
from support.paths import ROOT, load_all

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "s", "l", "t", "nd")]
LENGTHS = 6, 12, 25, 100
COUNT = 40
"""Prompts of each length, and copies of them."""
SETTINGS = GroupSettings(
    caps={},
    eval_fraction=0.0,
    seed=0,
    max_reject_fraction=1.0,
    near_duplicates=0.8,
    decontamination=Decontamination(),
)


def sentence(seed: int, words: int) -> str:
    return " ".join(WORDS[k] for k in np.random.default_rng(seed).integers(len(WORDS), size=words))


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def system(text: str, other: list[Message]) -> list[Message]:
    return [{"role": "system", "content": text}, *other]


def own(text: str, words: int) -> str:
    """Words that belong to this text alone."""
    return sentence(sum(map(ord, text)) * 1000 + len(text), words)


def changed(text: str) -> str:
    words = text.split()
    return " ".join([*words[: len(words) // 2], "changed", *words[len(words) // 2 + 1 :]])


SHOTS = sentence(1, 200)
PERSONA = "You are a friendly assistant that answers in short and plain words, step by step."
COPIES: dict[str, Callable[[str], list[Message]]] = {
    "case, punctuation, spaces": lambda text: user(text.upper().replace(" ", "  ") + "?!"),
    "zero-width characters, soft hyphens": lambda text: user(text.replace("a", "a\u200b").replace("e", "e\u00ad")),
    "Cyrillic look-alikes": lambda text: user(text.replace("a", "\u0430").replace("o", "\u043e")),
    "Arabic digits": lambda text: user(text.replace("17", "\u0661\u0667")),
    "one changed word": lambda text: user(changed(text)),
    "one word left out": lambda text: user(changed(text).replace("changed ", "")),
    "an instruction before it": lambda text: user(f"Answer the question, in one short sentence. {text}"),
    "an instruction after it": lambda text: user(f"{text} Think step by step, then give the answer alone."),
    "a system message": lambda text: system(PERSONA, user(text)),
    "a further turn": lambda text: [
        *user(text),
        {"role": "assistant", "content": own(text, 30)},
        *user("And why is that so?"),
    ],
    "a prefix of 200 words, its own": lambda text: user(f"{own(text, 200)} {text}"),
    "a common prefix of 200 words": lambda text: user(f"{SHOTS} {text}"),
    "a changed word and an instruction": lambda text: user(f"Answer in one short sentence. {changed(text)}"),
}
OTHERS: dict[str, Callable[[str], list[Message]]] = {
    "the first half of it, then others": lambda text: user(
        " ".join(text.split()[: len(text.split()) // 2]) + " " + own(text, len(text.split()) // 2)
    ),
    "its words in another order": lambda text: user(" ".join(sorted(text.split()))),
}


COMMON: dict[str, Callable[[str], list[Message]]] = {
    "prefix": lambda text: user(f"{SHOTS} {text}"),
    "system": lambda text: system(SHOTS, user(text)),
}


def originals(length: int) -> list[str]:
    texts = [sentence(length * 1000 + k, length - 1).split() for k in range(COUNT)]
    return [" ".join([*text[: length // 3], "17", *text[length // 3 :]]) for text in texts]


def write(folder: Path, prompts: Sequence[list[Message]]) -> Path:
    folder.mkdir(parents=True)
    writer = CandidateWriter(folder, len(prompts), 0)
    for prompt in prompts:
        writer.add(candidate(prompt, "one answer", "another answer"))
    writer.close()
    return candidates_manifest(folder, len(prompts))


def compared(
    root: Path,
    *data: Sequence[list[Message]],
    benchmark: Sequence[list[Message]] = (),
    settings: GroupSettings = SETTINGS,
) -> Path:
    """The result of comparing the prompts of several datasets, and of a benchmark."""
    manifests = [write(root / f"data{k}", prompts) for k, prompts in enumerate(data)]
    benchmarks = [write(root / "benchmark", benchmark)] if benchmark else []
    (out := root / "prompts").mkdir()
    group_prompts("m", settings, manifests, benchmarks, out)
    return out


def together(folder: Path, one: list[Message], other: list[Message]) -> bool:
    groups = PromptGroups.load(folder)
    return groups.group_of(prompt_identity(one)) == groups.group_of(prompt_identity(other))


def row(root: Path, name: str, copy: Callable[[str], list[Message]]) -> str:
    """A row of the table in config/README.md: the shares caught by the split and by decontamination, by length."""
    texts = {length: originals(length) for length in LENGTHS}
    plain = [user(text) for length in LENGTHS for text in texts[length]]
    copied = [copy(text) for length in LENGTHS for text in texts[length]]
    split = compared(root / "split", plain, copied)
    held = [together(split, *two) for two in zip(plain, copied, strict=True)]
    index = BenchmarkPrompts.load(compared(root / "found", copied, benchmark=plain))
    words = [partial(prompt_words, json.dumps(one), system=True) for one in copied]
    found = [index.find(prompt_identity(one), text) is not None for one, text in zip(copied, words, strict=True)]
    cells = [
        f"{np.mean(which[k * COUNT : (k + 1) * COUNT]):.0%}" for which in (held, found) for k in range(len(LENGTHS))
    ]
    return " | ".join([f"| {name}", *cells]) + " |"


def test_what_is_caught_is_what_the_table_says(tmp_path: Path) -> None:
    said = (ROOT / "config" / "README.md").read_text()
    rows = [row(tmp_path / str(k), *kind) for k, kind in enumerate({**COPIES, **OTHERS}.items())]
    assert "\n".join(rows) in said, "config/README.md should have\n" + "\n".join(rows)


def test_a_common_prefix_or_system_message_makes_no_copies(tmp_path: Path) -> None:
    """And copies among prompts that have it are found."""
    texts = [text for length in (12, 25) for text in originals(length)]
    for name, around in COMMON.items():
        prompts = [around(text) for text in texts]
        copied = [around(f"Answer in one short sentence. {text}") for text in texts[:10]]
        folder = compared(tmp_path / name, prompts, copied)
        assert not any(together(folder, prompts[0], other) for other in prompts[1:])
        assert all(together(folder, *two) for two in zip(prompts, copied, strict=False))


def test_a_template_makes_no_copies(tmp_path: Path) -> None:
    texts = [f"How do I say {word} in Spanish to my teacher?" for word in WORDS[:20]]
    folder = compared(tmp_path, [user(text) for text in texts])
    assert not any(together(folder, user(texts[0]), user(other)) for other in texts[1:])


@pytest.mark.parametrize(("template", "count"), [("What is {} plus {}?", 90), ("Is {} more than {}, or less?", 300)])
def test_little_data_from_a_template_is_not_one_group(tmp_path: Path, template: str, count: int) -> None:
    """Each prompt differs from some others in one number, which would join them all; the split is by prompt."""
    draw = Random(0)
    texts = sorted({template.format(draw.randint(10, 99), draw.randint(10, 99)) for _ in range(count)})
    prompts, fraction = [user(text) for text in texts], 0.1
    folder = compared(tmp_path, prompts, settings=SETTINGS.replace(eval_fraction=fraction))
    ids = np.array(sorted(map(prompt_identity, prompts)), dtype=np.uint64)
    assert 0 < PromptGroups.load(folder).held_out(ids).mean() < 3 * fraction


def test_groups_of_real_prompts_are_small(tmp_path: Path) -> None:
    """Dialogues that continue each other belong together; what they have in common with others does not join them."""
    prompts = []
    for pair in load_all("hh_rlhf_test/*/*.jsonl.gz"):
        turns = pair["chosen"].split("\n\nHuman: ")[1:]
        prompts.append(user("\n".join(turns).rpartition("\n\nAssistant:")[0]))
    folder = compared(tmp_path, prompts)
    sizes = PromptGroups.load(folder).sizes()
    assert sizes.max() < 50
    assert 300 < sizes.sum() < 0.15 * len(prompts)
