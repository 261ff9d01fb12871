"""Tunesmith turns a pretrained language model into an assistant that follows instructions.

    from tunesmith import encode

`encode` gives the exact tokens of a conversation and which of them are supervised. Everything else is reached through
the command, `tunesmith`. Importing this package imports neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.base.conversation import Conversation, Message
    from tunesmith.tokens.supervise import encode

__version__ = "0.1.0"
__all__ = ["Conversation", "Message", "__version__", "encode"]

_HOME = {
    "encode": "tunesmith.tokens.supervise",
    "Conversation": "tunesmith.base.conversation",
    "Message": "tunesmith.base.conversation",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
