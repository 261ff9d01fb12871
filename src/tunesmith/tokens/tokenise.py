"""Token ids of texts: by the model's own tokenizer, or of many texts by a faster reading of the same tokenizer.

`tokenise` is what a server does. `bulk` gives the same ids some tens of times faster, by fastokens, which reads the
tokenizer's own file. It is another program, so it is not trusted: it counts only if it agrees with the tokenizer on
hard texts and on texts of the data, and goes on being compared while it works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.errors import TunesmithError

Ids = NDArray[np.int32]
Tokenise = Callable[[Sequence[str]], Sequence[Ids]]

COMPARED_EVERY = 64
"""Of the texts that `bulk` tokenises, one in so many is tokenised by the model's own tokenizer too."""

WORDS_REMEMBERED = 100_000

# Where tokenizers differ: white space of all kinds, contractions in either case, digits, letters beyond the first
# plane, composed and combining characters, joiners, characters of late Unicode versions, control characters.
_HARD = (
    "",
    " ",
    "\n",
    " \n \r\n\t\n  x",
    "a  b   c    ",
    "\u00a0\u2028\u3000\u0085\x1c\x0b",
    "it's IT'S 'ſ İ ß ﬁ Ⅷ ²",
    "1234567 1,234.5 ١٢٣ ₄₅",
    "e\u0301é\u1e69 \u0323\u0307",
    "👩\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 🫨 \U0001fae9 \U00031350 𐐷",
    "你好，世界。ไทย हिन्दी العربية",
    "\x00\x7f\ufeff\u200b\u200d\ufffd\uffff",
    "def f(x):\n\t\treturn x**2  # ok\n",
    "<|x|> [INST] </s> <s> ▁Ġ Ċ",
    "x" * 400,
)


class _Flat(Protocol):
    def encode_batch_flat(self, inputs: list[str]) -> tuple[bytes, bytes]: ...


def tokenise(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, special tokens in it recognised and none added.

    Equal to `tokenizer(texts, add_special_tokens=False)`, at the speed of the backend without offsets.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    # Left over from whatever the tokenizer did before; transformers sets both anew at each call of its own.
    backend.no_truncation()
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def by_tokenizer(tokenizer: Any) -> Tokenise:
    """`tokenise` as a function of texts alone."""
    return lambda texts: [np.asarray(ids, dtype=np.int32) for ids in tokenise(tokenizer, texts)]


def bulk(tokenizer: Any, samples: Sequence[str]) -> Tokenise:
    """The fastest function that gives what `tokenise` does; `samples` are texts such as it will be used for.

    It raises TunesmithError if it ever meets a text that the two tokenise differently.
    """
    fast = _fastokens(tokenizer)
    own = by_tokenizer(tokenizer)
    if fast is None or _differing(_flat(fast), own, [*_HARD, *_around_added(tokenizer), *samples]) is not None:
        _remember_more_words(tokenizer)
        return own
    return _Compared(_flat(fast), own)


class _Compared:
    """The faster function, compared with the tokenizer's own on one text in COMPARED_EVERY."""

    def __init__(self, fast: Tokenise, own: Tokenise) -> None:
        self._fast, self._own = fast, own

    def __call__(self, texts: Sequence[str]) -> Sequence[Ids]:
        differing = _differing(self._fast, self._own, texts[::COMPARED_EVERY])
        if differing is not None:
            raise TunesmithError(
                f"fastokens and the model's own tokenizer make different tokens of {differing[:200]!r}. What was made "
                f"of this data is not used. Go on without it (`pip uninstall fastokens`): slower, and exact; and "
                f"please report the text and the model."
            )
        return self._fast(texts)


def _differing(one: Tokenise, other: Tokenise, texts: Sequence[str]) -> str | None:
    """The first text that two functions tokenise differently."""
    pairs = zip(texts, one(texts), other(texts), strict=True)
    return next((text for text, a, b in pairs if not np.array_equal(a, b)), None)


def _around_added(tokenizer: Any) -> list[str]:
    """Each added token among text and white space, which some of them swallow."""
    return [
        f" a {token.content} \n {token.content}b{token.content}" for token in tokenizer.added_tokens_decoder.values()
    ]


def _fastokens(tokenizer: Any) -> _Flat | None:
    """The tokenizer as fastokens reads it; None if it can't."""
    try:
        import fastokens  # imported here: only preparing needs it
    except ImportError:  # a system without a wheel of it, or someone took it out: slower, nothing else
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    backend.no_truncation()
    backend.no_padding()
    try:
        read: _Flat = fastokens.Tokenizer.from_json_str(backend.to_str())
    except ValueError:  # it does not know every kind of tokenizer, and says so
        return None
    return read


def _flat(tokenizer: _Flat) -> Tokenise:
    def ids_of(texts: Sequence[str]) -> Sequence[Ids]:
        ids, places = tokenizer.encode_batch_flat(list(texts))
        ends = np.frombuffer(places, dtype="<u8").tolist()
        flat = np.frombuffer(ids, dtype="<u4").astype(np.int32)
        return [flat[start:end] for start, end in pairwise(ends)]

    return ids_of


def _remember_more_words(tokenizer: Any) -> None:
    """Let a BPE keep the tokens of more words at hand: over many rows, a tenth faster than with its 10,000."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and hasattr(backend.model, "_resize_cache"):
        backend.model._resize_cache(WORDS_REMEMBERED)
