"""Phrases that say nothing: preambles and closings of responses, found so that what remains stands by itself.

Each is looked for in English, at the very start or end of a response, and left alone where it may be content: where
it answers a question ("Is it safe?" "Certainly! ..."), or where the response is something written for others to read.
"""

from __future__ import annotations

import re

_I = re.IGNORECASE

_AGREED = (
    r"(?:sure(?: thing)?|certainly|of course|absolutely|definitely|no problem|gladly|my pleasure"
    r"|(?:that['’]s an? )?(?:great|good|excellent) question)"
)
_HERE = r"(?:here(?:['’]s| is| are)|below (?:is|are)|the following (?:is|are))"
_AI = (
    r"as an? (?:ai|artificial intelligence|large language model|language model)(?: language)?(?: model)?"
    r"(?: assistant| chatbot| system)?(?: (?:developed|created|trained|made|built) by \w+)?,\s+"
)
# What may follow a preamble: the start of a sentence, of a list, of a quotation, of Markdown.
_BEGINS = r"(?=[^\W_a-z]|[\"“'‘*#`|\[(<$\\-])"

_ANY = re.compile(rf"\s*(?:{_AGREED}|{_HERE}|{_AI}|i(?:['’]d| would| can|['’]ll| will|['’]m| am)\b)", _I)
_AGREEMENT = re.compile(rf"\s*(?i:{_AGREED})[!.]+\s+{_BEGINS}")
_OFFER = re.compile(
    rf"\s*(?i:(?:{_AGREED}[,.!]\s+)?i(?:['’]d| would| can|['’]ll| will|['’]m| am)(?: definitely| certainly)?(?: be)?"
    rf"(?: more than)?(?: happy| glad| delighted)?(?: to)? (?:help|assist)(?: you)?(?: out)?"
    rf"(?: with (?:that|this|it))?)[.!]\s+{_BEGINS}"
)
_ANNOUNCED = re.compile(
    rf"\s*(?i:(?:{_AGREED}[,.!]?\s+)?{_HERE}) (?P<what>[^\n.!?:]{{1,200}})"
    r"(?::[ \t]*(?:\n\s*(?=\S)|\s+(?=[A-Z][a-z]|[\"“]|\d+[.)]\s)|\s*\Z)|\.[ \t]*\n\s*(?=```))"
)
_DISCLAIMER = re.compile(
    rf"\s*(?i:{_AI}i (?:do not|don['’]t|cannot|can['’]t|am not|haven['’]t)(?! (?:currently )?have the )"
    r"(?:(?!\b(?:but|however|though|although|so)\b)[^.!?\n])*?"
    r"\b(?:personal|feelings?|emotions?|opinions?|preferences?|beliefs?|desires?|experiences?|consciousness)\b"
    r"(?:(?!\b(?:but|however|though|although|so)\b)[^.!?\n])*[.!]\s+"
    rf"(?:(?:however|but|that said|that being said|with that said|nevertheless|nonetheless),?\s+)?)(?=\w)"
)
_SELF = re.compile(rf"\s*(?i:{_AI})(?=I (?:can|could|would|will|suggest|recommend|believe|think) (?!not\b))")

# Words that say what kind of thing is announced, whatever was asked for.
_KINDS = frozenset(
    "example list code answer solution summary response version translation sentence function program query script"
    " draft table steps tips ideas suggestions explanation result output overview outline examples"
    " questions recipe".split()
)
_YES_OR_NO = re.compile(
    r"(?:\A|[.!?,:;\n]\s*)(?:and |but |so )?(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|may"
    r"|might|must|am|isn['’]t|aren['’]t|don['’]t|doesn['’]t|didn['’]t|can['’]t|won['’]t)\b(?P<rest>[^.!?\n]*)\?\W*\Z",
    _I,
)
_REQUEST = re.compile(
    r"\s+(?:you|i ask you to|we)\s+(?:please |kindly |also |briefly )?(?:help|explain|tell|give|provide|show|write"
    r"|create|generate|describe|suggest|recommend|summari[sz]e|list|translate|make|find|assist|offer|share|convert|compare"
    r"|elaborate|walk|teach|name|calculate|solve|fix|check|add|update|change|rewrite|outline|discuss|define|compose"
    r"|draft|design|come up|get|set|send|book|play|do|answer|identify|analy[sz]e|clarify|simplify|demonstrate)\b",
    _I,
)
# Responses that are themselves written or spoken to somebody: there, "Sure!" and "let me know" are content.
_TO_SOMEBODY = re.compile(
    r"\b(?:e-?mails?|letters?|messages?|repl(?:y|ies)|respond|dialog(?:ue)?s?|conversations?|scripts?|chatbots?"
    r"|customers?|speech|invitations?|memo|tweet|post|ad|advert\w*|role.?play|imagine|pretend|act as|you are an?"
    r"|rewrite|paraphrase|translate|edit|correct|rephrase|proofread|continue|complete)\b",
    _I,
)
_SALUTATION = re.compile(
    r"\s*(?:dear|hi|hello|hey|greetings|subject:|to whom|good (?:morning|afternoon|evening))\b", _I
)

_OBJECT = (
    r"(?:any|more|further|else|other|another|additional|questions?|help|assist\w*|clarif\w*|details?|guidance"
    r"|information|anything|adjust\w*|modif\w*|chang\w*|revis\w*)"
)
_CLOSING = re.compile(
    rf"""(?P<gap>\s*)(?:
        i\ hope\ (?:this|that|it|these)\b[^.!?\n]{{0,40}}\b(?:helps?|helpful|useful)\b[^.!?\n]{{0,40}}[.!]
      | (?:please\ |and\ )?(?:let\ me\ know|feel\ free\ to\ (?:ask|reach\ out|let\ me\ know)
            |do(?:n['’]t|\ not)\ hesitate\ to\ (?:ask|reach\ out|let\ me\ know))\ (?:me\ )?
            (?:if|should)\ (?:you|there)\b[^.!?\n]{{0,60}}\b{_OBJECT}\b[^.!?\n]{{0,100}}[.!]
      | (?:if|should)\ you\b[^.!?\n]{{0,60}}\b{_OBJECT}\b[^.!?\n]{{0,100}}
            \b(?:feel\ free|let\ me\ know|just\ ask|do(?:n['’]t|\ not)\ hesitate\ to\ (?:ask|reach\ out|let\ me\ know))
            \b[^.!?\n]{{0,60}}[.!]
      | (?:is|was)\ there\ anything\ (?:else|more)\b[^.!?\n]{{0,80}}\?
      | do\ you\ (?:have|need)\ any\ (?:other|more|further)\ (?:questions?|help|assistance)\b[^.!?\n]{{0,80}}\?
    )\s*\Z""",
    _I | re.VERBOSE,
)
_CLOSING_WORD = re.compile(r"\b(?:hope|know|free|hesitate|ask|anything|questions?)\b", _I)
_ENDED = tuple(".!?:;)]}”\"'*`|>…")
_SPEAKER = re.compile(r"[A-Z][\w ]{0,20}:")
_LONGEST_CLOSING = 260  # characters
_MOST_PHRASES = 20  # at either end of a response; more is no response but a flood, which costs time
_WORD = re.compile(r"[^\W\d_]{4,}")


def preamble_end(response: str, asked: str) -> int:
    """Where the response begins behind its preamble, 0 if there is none. asked: the user's message before it.

    "Sure!", "Of course, I can help you with that.", "Here is a poem about spring:", "As an AI language model, I don't
    have opinions. However, ...". Behind "Here is the list:" nothing may remain; the caller sees to that.
    """
    if not _ANY.match(response):
        return 0
    start = 0
    for _ in range(_MOST_PHRASES):
        if not (end := _one_preamble(response[start:], asked)):
            break
        start += end
    return start


def _one_preamble(response: str, asked: str) -> int:
    if found := _ANNOUNCED.match(response):
        return found.end() if _is_about(found["what"], asked) and not _SALUTATION.match(response) else 0
    if found := _AGREEMENT.match(response) or _OFFER.match(response):
        is_content = _TO_SOMEBODY.search(asked) or _asks_yes_or_no(asked)
        return 0 if is_content else found.end()
    if found := _DISCLAIMER.match(response):
        # Asked what it likes or feels, that is the answer.
        return 0 if re.search(r"\byou(?:r|rself)?\b", _REQUEST.sub("", asked), _I) else found.end()
    found = _SELF.match(response)
    return found.end() if found else 0


def closing_start(response: str, asked: str) -> int:
    """Where the closing of a response begins ("I hope this helps! Let me know if ..."), its length if there is none."""
    end = len(response)
    if not _CLOSING_WORD.search(response, max(0, end - _LONGEST_CLOSING)):
        return end
    if _TO_SOMEBODY.search(asked) or _SALUTATION.match(response):
        return end
    for _ in range(_MOST_PHRASES):
        if (start := _one_closing(response, end)) == end:
            break
        end = start
    return end


def _one_closing(response: str, end: int) -> int:
    tail = max(0, end - _LONGEST_CLOSING)
    for ending in re.finditer(r"(?<=[.!?:;)\]}”\"'*`|>…\n])\s", response[tail:end]):
        start = tail + ending.start()
        found = _CLOSING.match(response, start, end)
        line = response[response.rfind("\n", 0, start) + 1 : end]
        if found and response[:start].rstrip().endswith(_ENDED) and not _SPEAKER.match(line):
            return start
    return end


def _is_about(what: str, asked: str) -> bool:
    """Whether an announcement names what was asked for; if not, it may be how a story begins."""
    announced = {word.lower() for word in _WORD.findall(what)}
    if announced & _KINDS:
        return True
    wanted = {word.lower()[:5] for word in _WORD.findall(asked)}
    return any(word[:5] in wanted for word in announced)


def _asks_yes_or_no(asked: str) -> bool:
    found = _YES_OR_NO.search(asked[-300:])
    return bool(found) and not _REQUEST.match(found["rest"] if found else "")


_UNABLE = (
    r"i(?:(?: am|['’]m) (?:not able|unable|not allowed|not permitted|not programmed|not capable|not comfortable)"
    r"| can(?:no|['’])t| can not| won['’]t| will not| must decline| have to decline"
    r"| (?:do not|don['’]t) (?:currently )?have the (?:ability|capability|means))"
)
_SORRY = (
    r"(?:(?:i['’]m|i am) (?:very |so |really )?sorry|sorry|apologies|i apologi[sz]e|unfortunately)(?:,? but|[,.])? "
)
_AS_AI = r"as an? (?:ai|artificial intelligence|language model|large language model)\b[\w ]{0,40},? "
# What an assistant refuses; behind "sorry" or "as an AI" more of it than without, where a person may be speaking.
_HELP = r"help|assist|provide|fulfil?l|comply|answer|respond|generate|engage|support"
_ACT = (
    r"create|write|do that|do this|perform|complete|process|access|offer|give|share|discuss|recommend|book|order"
    r"|directly|browse|search|predict|produce|draw|execute|continue|participate|browsing|creating|booking|ordering|have"
)
_REFUSAL = re.compile(
    rf"\s*(?:(?:{_SORRY}|{_AS_AI})+(?:but )?{_UNABLE}(?= (?:to |of |with |in )?(?:\w+ )?(?:{_HELP}|{_ACT})|[.,])"
    rf"|{_UNABLE}(?= (?:to |of |with )?(?:{_HELP})))",
    _I,
)
_REFUSAL_START = re.compile(r"\s*(?:i\b|sorry|apolog|unfortunately|as an?\b)", _I)


def is_refusal(response: str) -> bool:
    """Whether a response begins by refusing ("I'm sorry, but I can't help with that"), in English."""
    return _REFUSAL_START.match(response) is not None and _REFUSAL.match(response) is not None
