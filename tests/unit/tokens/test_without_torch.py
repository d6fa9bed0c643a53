"""A program that only tokenizes waits for no torch, and its tokens are the same."""

import json
import subprocess
import sys
from pathlib import Path

from rewardline.tokens.tokenizer import load_tokenizer

from support.paths import SCRIPTS

PROGRAM = """
import importlib.util, json, sys
from rewardline.tokens.without_torch import hide_torch
hide_torch()
import rewardline.tokens.tokenize_pairs
from rewardline.tokens.tokenizer import load_tokenizer
tokenizer = load_tokenizer(sys.argv[1])
ids = tokenizer(sys.argv[2:])["input_ids"]
chat = tokenizer.apply_chat_template([{"role": "user", "content": sys.argv[2]}], chat_template=sys.argv[3])["input_ids"]
assert "torch" not in sys.modules
assert importlib.util.find_spec("torch")
print(json.dumps([ids, chat]))
"""


def test_tokens_are_the_same_without_torch(base: Path) -> None:
    texts = ["What is 2 + 3?", "{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}{% endfor %}"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(base), *texts], cwd=SCRIPTS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    tokenizer = load_tokenizer(base)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": texts[0]}], chat_template=texts[1])
    assert json.loads(done.stdout) == [tokenizer(texts)["input_ids"], chat["input_ids"]]
