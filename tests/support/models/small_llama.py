"""A tokenizer of Llama 3's kind: its control tokens, what begins a text, form of chat template, few words."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from igpo.protocols import MODULES, find

BEGIN, END = "<|begin_of_text|>", "<|eot_id|>"
ENDS = ("<|end_of_text|>", "<|eom_id|>", END)  # as its generation_config lists them
CONTROL = (BEGIN, "<|start_header_id|>", "<|end_header_id|>", *ENDS)
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Headers around roles, today's date, tools in the first message of the user, a tool's answer as JSON.
TEMPLATE = """\
{{- bos_token -}}
{%- set today = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' -%}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' -}}
{%- if tools -%}{{- 'Environment: ipython\\n' -}}{%- endif -%}
{{- 'Today Date: ' + today + '\\n\\n' -}}
{%- if messages[0].role == 'system' -%}{{- messages[0].content | trim -}}{%- endif -%}
{{- '<|eot_id|>' -}}
{%- for message in messages if message.role != 'system' -%}
{%- if message.role == 'tool' -%}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + (message.content | tojson) -}}
{%- else -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' -}}
{%- if tools and loop.first -%}
{{- 'Call a function as {"name": ..., "parameters": ...}.\\n\\n' -}}
{%- for tool in tools -%}{{- (tool | tojson(indent=4)) + '\\n\\n' -}}{%- endfor -%}
{%- endif -%}
{{- message.content | trim -}}
{%- endif -%}
{{- '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""


def tokenizer() -> PreTrainedTokenizerFast:
    """About 600 tokens: bytes, merges learned from the protocols' instructions, Llama's control tokens."""
    bpe = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([find(name).instructions for name in MODULES], trainer)
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    begins = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, bpe.token_to_id(BEGIN))]
    )
    bpe.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), begins])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BEGIN,
        eos_token=END,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=True,
    )
