"""Demo preference data, made on the fly: pairs whose rejected answer has exactly one labelled flaw.

The default configuration trains on it, so that a person can see whether a reward model learns what it should. Chosen
and rejected answers are composed by the same function from the same optional parts, so openers, closing sentences and
phrasings tell nothing. For every flaw the chosen answer is the longer one, in words, in half of the pairs (ties count
as half). Most answers with a wrong value differ from the right ones in that value only. Values are drawn from the same
ranges whether right or wrong, and either of two forms is asked for equally often, so that wrong_number, wrong_fact,
off_question and format_ignored cannot be recognized without reading the prompt.

Only `random.Random(seed)` is used: a seed gives the same rows on every machine, and more rows begin with the same.
"""

from collections.abc import Iterator
from random import Random

from rewardline.data.demo.answers import FLAWS, Message, Pair, compose, dialogue, format_pair, wrong_value
from rewardline.data.demo.questions import ask
from rewardline.data.demo.tables import ANY, GROUPS, WEIGHTED

SHARES = GROUPS["flaws"]
RICH = 0.2  # how likely each optional part of an answer is at first; changed if the lengths do not come out right
TWINS = 0.8  # how often a wrong value is all that differs between the two answers


def generate(pairs: int, seed: int) -> Iterator[dict[str, list[Message] | str]]:
    """Yield `pairs` rows with prompt (messages), chosen, rejected and subset (the flaw); a seed gives the same rows."""
    rng = Random(seed)
    deck: list[tuple[str, bool]] = []
    for _ in range(pairs):
        if not deck:
            deck = [(flaw, longer) for flaw, share in SHARES.items() for longer in (True, False) for _ in range(share)]
            rng.shuffle(deck)
        flaw, chosen_longer = deck.pop()
        prompt, chosen, rejected = _pair(rng, flaw, chosen_longer)
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected, "subset": flaw}


def _pair(rng: Random, flaw: str, chosen_longer: bool) -> Pair:
    """A prompt and its two answers; the chosen one has more words than the rejected one if `chosen_longer`."""
    earlier = rng.choice(ANY)
    if flaw == "format_ignored":
        return format_pair(rng, earlier, chosen_longer)
    kind = rng.choice(WEIGHTED.get(flaw, ANY))
    question = ask(rng, kind)
    other, spoil = question, FLAWS.get(flaw, wrong_value)
    while flaw == "off_question" and other.topic == question.topic:
        name = rng.choice(ANY)
        other = ask(rng, name) if name != kind else question
    prompt = dialogue(rng, question, earlier)
    if spoil is wrong_value and rng.random() < TWINS:
        frame = compose(rng, question, "{}", RICH)
        return prompt, frame.replace("{}", question.right), frame.replace("{}", question.wrong(rng))
    for attempt in range(12):  # until the lengths come out right, as they nearly always do in two or three
        more, less = RICH + 0.06 * attempt, RICH - 0.03 * attempt
        chosen = compose(rng, question, question.right, more if chosen_longer else less)
        rejected = spoil(rng, question, other, less if chosen_longer else more)
        excess = len(chosen.split()) - len(rejected.split())
        if excess and (excess > 0) == chosen_longer:
            break
    return prompt, chosen, rejected
