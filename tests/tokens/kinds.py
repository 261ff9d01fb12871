"""Tokenizers and chat templates of the kinds in use, written for these tests."""

# ruff: noqa: E501  (white space counts in templates, so their lines are not broken)

from dataclasses import dataclass, field
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tunesmith.tokens.rendering import shipped_template

CORPUS = """The ship left the harbour at dawn, and the captain asked: where do we go?
user assistant system tool model think answer question Instruction Response Answer Human
Hello! I'm fine.\n\nThank you.   What is 12 + 30?  It is 42.\n\tdef f(x):\n\t\treturn x\n
{"name": "get_weather", "arguments": {"city": "Oslo"}} Ünïcödé: naïve café, 你好, 🙂
""".splitlines(keepends=True)

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@cache
def trained(split: str) -> str:
    """The JSON of a small BPE whose text is split as GPT-2, Qwen or Llama 2 split it."""
    if split == "llama2":
        backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
        backend.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(content=" ", left=1),
            ]
        )
        alphabet, special = [], ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    else:
        backend = Tokenizer(models.BPE())
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split == "gpt2")
        backend.pre_tokenizer = byte_level
        if split == "qwen":
            backend.normalizer = normalizers.NFC()
            backend.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"), byte_level]
            )
        backend.decoder = decoders.ByteLevel()
        alphabet, special = pre_tokenizers.ByteLevel.alphabet(), []
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS * 3, trainer)
    return backend.to_str()


@dataclass(frozen=True)
class Kind:
    """A chat template with the special tokens it needs, and what it can take.

    stop: the token that ends an answer. marks: added tokens, special; a leading "~" makes one not special, a trailing
    "~" makes it swallow the white space on its right.
    """

    template: str | None
    stop: str
    marks: tuple[str, ...] = ()
    eos: str = "<|endoftext|>"
    bos: str | None = None
    split: str = "gpt2"
    system: bool = True
    tools: bool = False
    reasoning: bool = False
    args: dict = field(default_factory=dict)

    def tokenizer(self):
        made = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(trained(self.split)),
            eos_token=self.eos,
            bos_token=self.bos,
            clean_up_tokenization_spaces=False,
        )
        made.add_tokens([_added(mark) for mark in self.marks])
        made.chat_template = self.template
        return made


def _added(mark):
    name = mark.strip("~")
    return AddedToken(name, special=not mark.startswith("~"), normalized=False, rstrip=mark.endswith("~"))


IM = ("<|im_start|>", "<|im_end|>")

CHATML = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LLAMA2 = """{% if messages[0].role == 'system' %}{% set sys = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}\
{% set loop_messages = messages[1:] %}{% else %}{% set sys = '' %}{% set loop_messages = messages %}{% endif %}\
{% for m in loop_messages %}\
{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}\
{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (sys if loop.first else '') + m.content.strip() + ' [/INST]' }}\
{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

LLAMA3 = """{{ bos_token }}{% for m in messages %}\
{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}\
{% if m.tool_calls %}{{ '<|python_tag|>' + m.tool_calls[0].function | tojson + '<|eom_id|>' }}\
{% else %}{{ m.content | trim + '<|eot_id|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

# The system prompt goes to the last user message, so it moves from turn to turn.
MISTRAL_V3 = """{{ bos_token }}{% if messages[0].role == 'system' %}{% set sys = messages[0].content %}\
{% set rest = messages[1:] %}{% else %}{% set sys = '' %}{% set rest = messages %}{% endif %}\
{% set ns = namespace(last=0) %}{% for m in rest %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}\
{% for m in rest %}{% if m.role == 'user' %}\
{{ '[INST] ' + (sys + '\n\n' if sys and loop.index0 == ns.last else '') + m.content + '[/INST]' }}\
{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"""

GEMMA = """{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}\
{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

PHI3 = """{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""

# Reasoning of the turns before the last question is dropped; the last turn always has its think block.
QWEN3 = """{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}\
{% if m.role == 'assistant' and loop.index0 > ns.last and (loop.last or m.reasoning_content) %}\
{{ '<think>\n' + (m.reasoning_content or '').strip('\n') + '\n</think>\n\n' + m.content.lstrip('\n') }}\
{% else %}{{ m.content }}{% endif %}\
{% for c in m.tool_calls or [] %}{{ '\n<tool_call>\n' + c.function | tojson + '\n</tool_call>' }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"""

# The stop token is the header of the next message.
GLM4 = """[gMASK]<sop>{% for m in messages %}{% if m.tool_calls %}{% set called = m.tool_calls[0].function %}\
{{ '<|assistant|>\n' + called.name + '\n' + called.arguments | tojson }}\
{% else %}{{ '<|' + ('observation' if m.role == 'tool' else m.role) + '|>\n' + m.content }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""

# An answer ends with <|return|> when it is the last message and with <|end|> in history; tool calls with <|call|>.
HARMONY = """{% for m in messages %}{% if m.role == 'assistant' %}\
{% if m.tool_calls %}{{ '<|start|>assistant to=functions.' + m.tool_calls[0].function.name + '<|message|>' + m.tool_calls[0].function.arguments | tojson + '<|call|>' }}\
{% elif loop.last %}{% if m.reasoning_content %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.reasoning_content + '<|end|>' }}{% endif %}\
{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}\
{% else %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{% endif %}\
{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""

VICUNA = """{% for m in messages %}{% if m.role == 'system' %}{{ m.content + ' ' }}\
{% elif m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}{% else %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"""

# The prompt ends with a space, which tokenizers would rather join to the answer's first word.
SPACE = VICUNA.replace("'ASSISTANT:' }}", "'ASSISTANT: ' }}")

ZEPHYR = """{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""

DEEPSEEK = """{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}\
{{ '<｜User｜>' + m.content }}{% else %}{{ '<｜Assistant｜>' + m.content + eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"""

COMMAND = """{{ bos_token }}{% for m in messages %}{{ '<|START|><|' + m.role + '|>' }}\
{{ '<|START_RESPONSE|>' + m.content + '<|END_RESPONSE|>' if m.role == 'assistant' else m.content }}{{ '<|END|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|START|><|assistant|>' }}{% endif %}"""

KINDS = {
    "chatml": Kind(CHATML, "<|im_end|>", IM),
    "chatml-qwen": Kind(CHATML, "<|im_end|>", IM, eos="<|im_end|>", split="qwen"),
    "chatml-sentencepiece": Kind(CHATML, "<|im_end|>", IM, bos="<s>", eos="</s>", split="llama2"),
    "llama2": Kind(LLAMA2, "</s>", bos="<s>", eos="</s>", split="llama2"),
    "llama3": Kind(
        LLAMA3,
        "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        tools=True,
        split="qwen",
    ),
    "mistral-v3": Kind(MISTRAL_V3, "</s>", ("[INST]", "[/INST]"), bos="<s>", eos="</s>", split="llama2"),
    "gemma": Kind(
        GEMMA, "<end_of_turn>", ("<start_of_turn>", "<end_of_turn>"), "<eos>", "<bos>", "llama2", system=False
    ),
    "phi3": Kind(PHI3, "<|end|>", ("<|user|>~", "<|assistant|>~", "<|system|>~", "<|end|>~"), split="llama2"),
    "qwen3": Kind(
        QWEN3,
        "<|im_end|>",
        (*IM, "~<think>", "~</think>", "~<tool_call>", "~</tool_call>"),
        eos="<|im_end|>",
        split="qwen",
        tools=True,
        reasoning=True,
    ),
    "qwen3-no-thinking": Kind(
        QWEN3,
        "<|im_end|>",
        (*IM, "~<think>", "~</think>"),
        eos="<|im_end|>",
        split="qwen",
        args={"enable_thinking": False},
    ),
    "glm4": Kind(GLM4, "<|user|>", ("[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>")),
    "harmony": Kind(
        HARMONY,
        "<|return|>",
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>"),
        eos="<|return|>",
        tools=True,
        reasoning=True,
    ),
    "vicuna": Kind(VICUNA, "</s>", bos="<s>", eos="</s>", split="llama2"),
    "vicuna-bytes": Kind(VICUNA, "</s>", eos="</s>"),
    "space": Kind(SPACE, "</s>", eos="</s>"),
    "zephyr": Kind(ZEPHYR, "</s>", eos="</s>", bos="<s>", split="llama2"),
    "deepseek": Kind(
        DEEPSEEK, "<｜end｜>", ("~<｜User｜>", "~<｜Assistant｜>"), eos="<｜end｜>", bos="<｜begin｜>", split="qwen"
    ),
    "command": Kind(
        COMMAND,
        "<|END|>",
        ("<|START|>", "<|END|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|user|>", "<|assistant|>", "<|system|>"),
        eos="<|END|>",
        bos="<BOS>",
    ),
    "no-template": Kind(None, "<|endoftext|>"),
    "shipped-chatml": Kind(shipped_template("chatml"), "<|im_end|>", IM, tools=True, reasoning=True),
    "shipped-alpaca": Kind(
        shipped_template("alpaca"), "</s>", eos="</s>", bos="<s>", split="llama2", tools=True, reasoning=True
    ),
    "shipped-plain": Kind(shipped_template("plain"), "<|endoftext|>"),
    "shipped-seq2seq": Kind(shipped_template("seq2seq"), "</s>", eos="</s>", split="llama2"),
}
