"""A tokenizer of Qwen2.5's kind: its class, control tokens and form of chat template, few words."""

from transformers import AddedToken, Qwen2Tokenizer

from igpo.protocols import MODULES, find

ENDS = ("<|im_end|>", "<|endoftext|>")  # as its generation_config lists them
# ChatML with Hermes tool calls: tools as JSON in <tools>, a tool's answer as the user's in <tool_response>.
TEMPLATE = """\
{%- set system = messages[0].content if messages[0].role == 'system' else 'You help.' -%}
{{- '<|im_start|>system\\n' + system -}}
{%- if tools -%}
{{- '\\n\\n# Tools\\n\\n<tools>' -}}
{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}
{{- '\\n</tools>\\n\\nCall one as <tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call>' -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- for message in messages if message.role != 'system' -%}
{%- if message.role == 'tool' -%}
{{- '<|im_start|>user\\n<tool_response>\\n' ~ message.content ~ '\\n</tool_response><|im_end|>\\n' -}}
{%- else -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def tokenizer(end: str = "<|im_end|>") -> Qwen2Tokenizer:
    """About 600 tokens: bytes, merges learned from the protocols' instructions, Qwen's added tokens."""
    texts = [find(name).instructions for name in MODULES]
    bpe = Qwen2Tokenizer(vocab={}, merges=[]).train_new_from_iterator(texts, 600)
    special = ["<|im_start|>", "<|im_end|>"]
    bpe.add_special_tokens({"eos_token": end, "extra_special_tokens": special})
    bpe.add_tokens([AddedToken(tag, special=False) for tag in ("<tool_call>", "</tool_call>")])
    bpe.chat_template = TEMPLATE
    return bpe
