"""Tokenizers: loading, the tokens that they add to a text, and where they split one."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rewardline.core.errors import UserError, first_line, refused_by_system
from rewardline.core.files import read_json, write_json
from rewardline.core.settings import JsonObject

PAD_TOKEN = "<|pad|>"
MAX_KNOWN_LENGTH = 1 << 30
"""A tokenizer without a limit names more tokens."""
CHARACTERS_AT_ONCE = 1 << 20
"""About the most characters that are encoded together: encodings take some 75 bytes for each."""


def load_tokenizer(folder: Path | str, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer in a model folder, with a padding token that is not its end token.

    It may have no end token, as long as the setting `end_token` names one.

    Raises:
        UserError: there is none, or it is not a fast tokenizer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except Exception as error:
        if refused_by_system(error):
            raise
        raise UserError(f"{folder}: its tokenizer cannot be loaded: {first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{folder}: needs a fast tokenizer (tokenizer.json); found {type(tokenizer).__name__}")
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is not None:
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # Plain transformers find the score by skipping padding tokens by id, and would skip an equal end token too.
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    tokenizer.padding_side = "right"
    return tokenizer


def set_end_token(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Make a token of the vocabulary the tokenizer's end token, which is then a token of its own in every text."""
    if tokenizer.eos_token != name:
        tokenizer.add_special_tokens({"eos_token": name})


def take_chat_template(tokenizer: PreTrainedTokenizerFast, source: PreTrainedTokenizerFast, name: str) -> int:
    """Give a tokenizer the chat template, the added tokens and the end token of `source`; the number of new tokens.

    Raises:
        UserError: `source`, which is called `name`, has no chat template.
    """
    template = source.chat_template
    template = template.get("default") if isinstance(template, dict) else template
    if not template:
        raise UserError(
            f"chat_template_from: {name} has no chat template; name another tokenizer, or set chat_template"
        )
    size = len(tokenizer)
    added = sorted(source.added_tokens_decoder.items())
    tokenizer.add_tokens([token for _, token in added if token.content != PAD_TOKEN])
    tokenizer.chat_template = template
    if source.eos_token is not None:
        set_end_token(tokenizer, source.eos_token)
    return len(tokenizer) - size


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save a tokenizer as transformers 4.57 and 5 load it.

    It gives no `token_type_ids`: GPT-2 would add an embedding for them, and others take zeros by default.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = read_json(path)
    for name in ("backend", "is_local", "local_files_only"):
        config.pop(name, None)
    if config.get("model_max_length", 0) > MAX_KNOWN_LENGTH:
        del config["model_max_length"]
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    config["model_input_names"] = ["input_ids", "attention_mask"]
    write_json(path, {**config, "tokenizer_class": "PreTrainedTokenizerFast"})


def encode_texts(backend: Tokenizer, texts: Sequence[str]) -> Iterator[list[int]]:
    """The token ids of each text, without those that the tokenizer adds, in memory that does not grow with `texts`."""
    begin, size = 0, 0
    for end, text in enumerate(texts, 1):
        size += len(text)
        if end == len(texts) or size + len(texts[end]) > CHARACTERS_AT_ONCE:
            for encoding in backend.encode_batch_fast(list(texts[begin:end]), add_special_tokens=False):
                yield encoding.ids
            begin, size = end, 0


def added_tokens(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """The token ids that a tokenizer adds before and after every text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    full = backend.encode("a", add_special_tokens=True).ids
    start = next((k for k in range(len(full)) if full[k : k + len(bare)] == bare), 0)
    return full[:start], full[start + len(bare) :]


_WORD_SPLITTERS = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")
_LOOKBEHIND = re.compile(r"(?<!\[)\^|\\A|\\G|\\b|\(\?<[=!]")
_LOCAL_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "BertNormalizer", "StripAccents")


def splits_at_words(backend: Tokenizer) -> bool:
    """Whether the tokenizer splits every text before a word that follows an empty line, in any context.

    True for tokenizers that split text into words by patterns which depend on no more than the adjacent characters.
    """
    splitters = _components(backend.pre_tokenizer, "pretokenizers")
    known = all(_splits_words(splitter) or _only_divides(splitter) for splitter in splitters)
    local = all(part["type"] in _LOCAL_NORMALIZERS for part in _components(backend.normalizer, "normalizers"))
    return known and local and any(_splits_words(splitter) for splitter in splitters)


def starts_with_special_token(backend: Tokenizer, text: str) -> bool:
    """Whether `text` begins with a special token, at which a tokenizer splits every text first."""
    return any(
        token.special and not token.lstrip and text.startswith(token.content)
        for token in backend.get_added_tokens_decoder().values()
    )


def _components(part: object | None, key: str) -> list[JsonObject]:
    """The components of a normalizer or pre-tokenizer as JSON; `key` holds those of a sequence."""
    if part is None:
        return []
    state = json.loads(part.__getstate__())  # type: ignore[arg-type]
    components: list[JsonObject] = state[key] if state["type"] == "Sequence" else [state]
    return components


def _only_divides(state: JsonObject) -> bool:
    """Whether a pre-tokenizer only splits the parts of a text further."""
    if state["type"] == "Punctuation":
        return state["behavior"] == "Isolated"
    return state["type"] == "Digits" or (state["type"] == "ByteLevel" and not state["add_prefix_space"])


def _splits_words(state: JsonObject) -> bool:
    if state["type"] == "Split" and isinstance(state["pattern"], dict):
        pattern = str(*state["pattern"].values())
        known = "\\p{L}" in pattern and not _LOOKBEHIND.search(pattern)
        return state["behavior"] == "Isolated" and not state["invert"] and known
    if state["type"] == "ByteLevel":
        return not state["add_prefix_space"] and bool(state.get("use_regex", True))
    return state["type"] in _WORD_SPLITTERS
