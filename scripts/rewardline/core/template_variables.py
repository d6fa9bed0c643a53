"""Which names variables of chat templates may have."""

from typing import Final

RESERVED: Final = frozenset({
    "conversation", "messages", "tools", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "sanitize_control_tokens",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs",
})  # fmt: skip
"""Names that variables of a template cannot have: arguments of `apply_chat_template` that are given otherwise."""
