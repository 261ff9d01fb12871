"""What an instruction asks to do with what: its root verb and the direct object, as in figure 3 of Self-Instruct.

Self-Instruct (arXiv:2212.10560) parses instructions for it. Here rules do: an instruction starts, after courtesies,
with its verb in the imperative, and the object is the last word of the noun phrase that follows. What begins otherwise
(questions, statements, most role play) has none, as there. docs/coverage.md says how often that agrees with people.
"""

from __future__ import annotations

import re

_VERBS = frozenset(
    """
    act add adapt advise analyse analyze answer apply argue arrange ask assess assign assume brainstorm break build
    calculate categorise categorize change check choose cite classify collect combine come compare compile complete
    compose compute condense conclude conduct connect consider construct continue convert copy correct count craft
    create criticize debate debug decide deduce define delete demonstrate derive describe design detect determine
    develop devise differentiate discuss divide draft draw edit eliminate elaborate estimate evaluate examine expand
    explain explore express extract fill find finish fix form formulate format generate get give guess help highlight
    identify illustrate imagine implement improve include infer insert interpret introduce invent join judge label let
    list look locate make match measure merge modify multiply name offer optimise optimize order organise organize
    outline paraphrase parse perform pick plan play point predict prepare present pretend prioritize produce proofread
    propose prove provide pull punctuate put rank rate read rearrange recommend record reconstruct rephrase reduce
    refactor remove rename render reorder reorganize repair replace reply research respond restate return reverse
    review revise rewrite reword round run say scan search select separate shorten show simplify sing simulate solve
    sort speak specify spell split spot state substitute subtract suggest summarise summarize synthesize tag take talk
    teach tell test think trace transform translate treat turn underline update use validate verify visualise
    visualize walk write
    """.split()
)
_COURTESY = re.compile(
    r"^(?:(?:please|kindly|now|first|then|next|also|hello|hi|hey|ok|okay|so|and)\b[,!.:]?\s*|"
    r"(?:can|could|would|will) (?:you|we)(?: please)? (?:help me (?:to )?)?|i (?:want|need|would like|'d like) you to |"
    r"i'?d like you to |your (?:task|job) is to |you (?:need|have) to |help me (?:to )?|let's |let us )+",
    re.IGNORECASE,
)
_NEED = re.compile(r"^(?:i|we) (need|want)\b(?! you\b)\s*", re.IGNORECASE)
_DETERMINERS = frozenset(
    "a an the this that these those my your his her its our their me us him them all any some each every both no "
    "following given one two three four five six seven eight nine ten few several many more it".split()
)
_PARTICLES = {
    "come": "up with",
    "think": "of about",
    "look": "up at for",
    "pull": "out",
    "put": "in",
    "fill": "in out",
    "make": "up",
}
_ENDS = frozenset(
    "of for to in on at by from with without about into onto over under between among through during before after as "
    "than and or but if that which who whom whose where when why how what while because so using based containing "
    "given named called is are was were be has have had can could should would will may might does do did it i you he "
    "she we they out up down off not only sound into per via like such unless until regarding according explaining "
    "describing below above more less".split()
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*[+#]*|\d+|[^\w\s]")


def verb_object(instruction: str) -> tuple[str, str] | None:
    """The verb and its object, in lower case and singular, of the first sentence that asks for something to be done;
    None where no sentence of the first three begins with a verb, or where the verb has no object."""
    for sentence in _SENTENCE.split(instruction[:400])[:3]:
        words = _WORD.findall(_COURTESY.sub("", _NEED.sub(r"\1 ", sentence.strip().lstrip("\"'“-*#>: "))))
        if words and (words[0].lower() in _VERBS or _NEED.match(sentence.strip())):
            said = [word.lower() for word in words[:24]]
            verb, rest = said[0], said[1:]
            # "Read the text and write a summary": what is to be read is not what is asked for.
            then = rest.index("and") + 1 if verb == "read" and "and" in rest else 0
            if then and then < len(rest) and rest[then] in _VERBS:
                verb, rest = rest[then], rest[then + 1 :]
            found = _object(verb, rest)
            return (verb, found) if found else None
    return None


def _object(verb: str, words: list[str]) -> str:
    particles = _PARTICLES.get(verb, "").split()
    while words and words[0] in particles:
        words = words[1:]
    while words and (words[0] in _DETERMINERS or words[0].isdigit()):
        words = words[1:]
    phrase = []
    for word in words:
        if word in _ENDS or not word[0].isalpha():
            break
        phrase.append(word)
    return singular(phrase[-1]) if phrase else ""


def singular(noun: str) -> str:
    """A noun without its plural's ending; what only looks like a plural may lose it too, the same way every time."""
    if len(noun) < 4 or noun.endswith(("ss", "us", "is")):
        return noun
    if noun.endswith("ies"):
        return noun[:-3] + "y"
    if noun.endswith(("ches", "shes", "sses", "xes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") else noun
