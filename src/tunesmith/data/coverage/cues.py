"""The words by which task categories are recognised, see `category`.

Of each cue: the category that it speaks for, its weight, and one pattern a line. A pattern begins and ends at the
border of a word; it is looked for in lower case.
"""

from __future__ import annotations

import re

LANGUAGES = (
    "english|french|german|spanish|italian|portuguese|dutch|russian|chinese|mandarin|japanese|korean|arabic|hindi|"
    "turkish|polish|swedish|norwegian|danish|finnish|latin|greek|hebrew|urdu|vietnamese|thai|ukrainian|czech|bengali"
)
WRITTEN = (
    r"(?:story|tale|poem|essay|letter|e-?mail|article|speech|toast|dialog(?:ue)?|conversation|description|slogan|"
    r"headline|tagline|haiku|song|lyric|blog|post|tweet|script|advert\w*|ad|review|paragraph|sentence|report|joke|"
    r"limerick|biography|bio|caption|scene|message|memo|press release|introduction|character|statement|proposal|"
    r"sonnet|monologue|announcement|newsletter|resume|profile|postcard|passage|text|chapter)s?"
)
NUMBERS = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|some|several|a few|\d+)"
TEXTS = "(?:passage|text|context|paragraph|article|story|document|dialog(?:ue)?|conversation|notice|background|bio)"
FIND = "(?:find|list|get|select|highlight|underline|collect|copy|name|identify)"
FEW = "(?:the|this|these|our|following|given|above)"
WRITE = (
    "(?:write|compose|draft|create|generate|make up|come up with|craft|produce|pen|invent|tell|construct|prepare|"
    "develop|need|want)"
)

ASKED: tuple[tuple[str, float, str], ...] = (
    (
        "coding",
        3,
        r"""
        python3?|javascript|typescript|java|c\+\+|c#|sql|html5?|css|golang|bash|php|kotlin|perl|matlab|react|regex\w*
        in (?:rust|go|c|r|ruby|swift)
        shell (?:script|command)
        regular expressions?
        numpy|pandas|mysql|jquery|node\.?js|django|tensorflow|pytorch|unix|linux|cobol|grep
        def \w+\(
        select\b.{1,60}\bfrom
        for \w+ in \w+
        print\(.*
        \w+\[\w+
        return \w+;?\n.*
        """,
    ),
    (
        "coding",
        2,
        r"""
        code|coding|program|programming|algorithms?|recurs\w+|software|web ?pages?|compil\w+|debug\w*|syntax|database
        (?:a|the|this|following) (?:\w+ )?(?:function|loop|script|method|array|query|api)
        class (?:that|with|for|to|named)
        data (?:types?|structures?)
        arrays|linked list|source code|git|object.oriented
        (?:given|two|an?|the) strings?
        binary (?:search|tree)
        sort(?:ed|ing)? (?:array|algorithm|list)
        function (?:that|to|which)
        """,
    ),
    (
        "math",
        3,
        r"""
        calculate|compute|probability|fractions?|median|perimeter|hypotenuse|geometr\w+|polynomial\w*|divisible
        equations?|derivative|integral|square roots?|prime numbers?|greatest common \w+
        (?:area|volume) of
        \d+ times \d+
        prove that
        convert \d.*
        the (?:sum|product|average|mean|difference) of
        solve for
        how much (?:money|profit|change)
        percent of
        \d+ ?% of
        round .{0,12}\d
        """,
    ),
    (
        "translation",
        4,
        rf"""
        translat\w+
        how (?:do|would) (?:you|i|we) say
        from (?:{LANGUAGES}) (?:in)?to (?:{LANGUAGES})
        (?:{LANGUAGES}):.{{3,}}\b(?:{LANGUAGES}):?
        von \w+ nach \w+
        """,
    ),
    (
        "translation",
        3,
        rf"""
        (?:into|to|in) (?:{LANGUAGES})
        (?:{LANGUAGES}) (?:word|term|phrase) for
        """,
    ),
    (
        "summarisation",
        5,
        r"""
        summar\w+|tl;?dr|nutshell|gist|condense\w*|highlights|in brief|sum up
        main (?:ideas?|points?|topic)
        key (?:points?|ideas?|takeaways?)
        boil(?:s|ed)?\b.{0,20}\bdown
        outline the (?:plot|main)
        most important (?:points?|facts?)
        """,
    ),
    (
        "summarisation",
        4,
        rf"""
        shorten
        (?:title|headline)\b.{{0,15}}\b(?:the|this|following)\b.{{0,20}}\b(?:sentence|plot|following|{TEXTS})
        {TEXTS}\b.{{0,30}}\b(?:title|headline)
        at most \w+ words
        one sentence\b.{{0,20}}\b(?:text|article|story|document)
        """,
    ),
    (
        "rewriting",
        4,
        r"""
        re-?writ\w+|rephras\w+|paraphras\w+|reword\w*|proofread|tense|other words|sound more \w+
        (?:passive|active) voice
        (?:correct|fix|check|edit)\b.{0,30}\b(?:grammar|spelling|punctuation|sentence|mistakes|errors|typos)
        (?:two|three|these|following) sentences into one
        more (?:formal|concise|polite|casual|professional)
        edit (?:this|the)
        """,
    ),
    (
        "rewriting",
        3,
        r"""
        synonyms?\b.{0,20}$|replace
        improve\b.{0,40}\b(?:flow|sentence|paragraph|text|writing|style)
        (?:turn|change|convert|make) .{0,30}\b(?:sentence|statement|text|paragraph|message)s? .{0,40}\b(?:into|to|so)
        combine\b.{0,30}\bsentences?
        simplify the (?:\w+ )?(?:sentence|text|paragraph)
        """,
    ),
    (
        "extraction",
        3.5,
        rf"""
        extract\w*|keywords|key words|named entit\w+|mentioned in|from the notes
        pull\b.{{0,20}}\bout
        {FIND}\b.{{0,40}}\b(?:in|from|of|out of|below) (?:{FEW} )?(?:{FEW} )?(?:letter|page|notes|list|phrase|e-?mail)
        {FIND}\b.{{0,40}}\b(?:in|from|of|out of|below) (?:{FEW} )?(?:{FEW} )?(?:sentence|message|abstract|{TEXTS})
        parse\b.{{0,40}}\binto
        """,
    ),
    (
        "extraction",
        2,
        r"""
        (?:identify|find|list|get|select) (?:me )?(?:all|the|every|each)
        parts of speech
        """,
    ),
    (
        "classification",
        4,
        r"""
        classif\w+|categori[sz]\w+|category|sentiment|spam|labels?|feel about|entail\w*|equivalent|duplicates?|genre
        (?:positive|negative) (?:or|and) (?:positive|negative)
        true or false|fact or (?:an )?opinion|on a scale|impl(?:y|ies)
        (?:same|identical) (?:thing|meaning|question)
        mean(?:s|ing)? the same
        predict the (?:star|rating)
        which of (?:these|the following) (?:topics|categories)
        paraphrases? (?:of )?(?:each|sentence)
        how (?:\w+ )?(?:happy|satisfied)
        stars?\b.{0,20}\breview
        review\b.{0,30}\bstars?
        """,
    ),
    (
        "classification",
        2.5,
        r"""
        yes,? (?:or )?no
        (?:decide|determine|tell me|say|detect|judge) (?:if|whether)
        sort\b.{0,40}\binto
        which language
        is (?:this|the (?:following|above)) [\w ]{2,40} or
        is it (?:an? )?\w+ or
        reviewer|review|topic
        what (?:type|kind) of (?:\w+ )?(?:sentence|question|text)
        """,
    ),
    (
        "closed_qa",
        2.5,
        rf"""
        (?:according to|based on|given|using|read(?:ing)?|from|after) (?:the|this|that|a)(?: \w+)? {TEXTS}
        (?:in|of|about|with) (?:the|this|that|a)(?: \w+)? {TEXTS}
        {TEXTS}:.*
        the {TEXTS}\b.{{0,40}}\banswer
        answer\b.{{0,50}}\b(?:below|above|{TEXTS})
        """,
    ),
    (
        "closed_qa",
        1.5,
        r"""
        answer (?:to )?(?:the |this |my )?(?:\w+ )?question
        my question
        question:.*
        """,
    ),
    (
        "brainstorming",
        3,
        rf"""
        ideas?|brainstorm\w*|come up with|tips|recommend\w*|suggest\w*|propose|think of|itinerary
        advice|strateg(?:y|ies)
        ways (?:to|of|in which|you|i)
        names? for
        plan (?:a|an|my|for)
        (?:give|list|name|provide|tell)\b.{{0,15}}\b{NUMBERS}
        examples? of
        (?:could|should) i
        what can (?:i|we)
        (?:some|any|the best|a few) (?:good|great|nice|popular|creative|healthy|common|best)
        generate (?:a list|{NUMBERS})
        (?:create|make) a list
        """,
    ),
    (
        "writing",
        3.5,
        rf"""
        {WRITE}(?: \S+){{0,8}} {WRITTEN}
        (?:continue|finish|complete) (?:the|this) (?:story|poem|text)
        imaginary|once upon
        sentences? (?:using|with|that contains?|containing|out of|from)
        """,
    ),
    (
        "writing",
        3,
        r"""
        story|poem|essay|slogan|haiku|toast
        using (?:all )?(?:of )?(?:these|the following) words
        facts into (?:a )?(?:sentence|text|story)
        concepts?\b.{0,60}\bsentence
        sentence\b.{0,60}\bconcepts?
        """,
    ),
    (
        "reasoning",
        4,
        r"""
        riddle|analog(?:y|ies)|odd one|what follows
        logic\w*|relation between|if all|deduce|infer|syllogism|fallacy|puzzle
        is to\b.{2,40}\bas
        (?:doesn.t|does not|don.t) (?:belong|fit)
        (?:right|correct|chronological) order
        \w{3,}er than \w+[,.]? .{0,60}\w+er than
        next (?:number|item|in the (?:series|sequence))
        """,
    ),
    (
        "reasoning",
        3,
        r"""
        step by step|predict|most likely|plausible
        what (?:would |will )?happens? (?:if|when|to|next)
        who is the \w+est
        if (?:it )?had
        if .{5,60}, (?:would|then|what|who|is|was|did)
        sit\b.{0,60}\b(?:left|right) of
        would help .{0,12}(?:most|best)
        """,
    ),
    (
        "role_play",
        4.5,
        r"""
        act (?:as|like)
        pretend|role.?play\w*|in character|persona
        (?:play|take|embrace|assume|adopt|take on) the (?:role|part|identity)
        (?:imagine|picture|immerse|envision) yourself|yourself (?:as|to be)
        imagine (?:that )?you(?: a|.)re
        (?:as if|as though|like) you (?:are|were)
        in the (?:voice|style|role|character|persona) of
        (?:speak|talk|respond|reply|answer)\b.{0,30}\b(?:as|like) (?:an?|the)
        as an? [\w ]{2,20} would
        how (?:do|does|would|can) (?:\w+ ){0,4}(?:reply|respond|react|greet|address)
        you(?: are|.re) the [\w']+[.!,].*
        """,
    ),
    (
        "conversation",
        4,
        r"""
        who are you|your name|how are you|how old are you|can we talk|what can you do
        your (?:creators?|purpose|training)
        are you (?:an?|human|real|able|sentient|chatgpt|conscious)
        do you (?:like|have|feel|enjoy|believe|love|remember)
        who (?:made|created|built|trained|developed|designed|owns) you
        let.s (?:chat|talk)
        what(?: is|.s|.re| are) your
        """,
    ),
    (
        "open_qa",
        1.5,
        r"""
        explain|define|describe|tell me about|meaning of|compare|discuss|how to|history of|what (?:is|are)
        differences? between
        name (?:the|a)
        """,
    ),
)

BEGINNING: tuple[tuple[str, float, str], ...] = (
    ("writing", 1.5, r"(?:please )?(?:write|compose|draft|craft)\b"),
    ("role_play", 4.5, r"you are (?:an? |the |now )(?!helpful|assistant|ai)"),
    (
        "conversation",
        4,
        r"(?:hi|hello|hey|thanks|thank you|good (?:morning|evening|afternoon|night|day)|"
        r"i (?:feel|felt|am|had|hate|love)|i.m)"
        r"\b",
    ),
    ("open_qa", 1.5, r"(?:what|who|when|where|why|which|how|is|are|do|does|did|can|was|were)\b"),
)
"""What a request begins with."""

SIGNS: tuple[tuple[str, float, str], ...] = (
    ("coding", 3, r"[;{]\s*\n|</[a-z]|#include|\w\(\w*\)\s*[{;]|import \w+\n| = \["),
    ("math", 3, r"\d\s*[-+*/×÷^=]\s*\(?\d|\b\d*x\^?\d? ?[-+=]"),
    ("reasoning", 4, r" :: "),
)
"""Signs in a request, beside words."""

ANSWERED: tuple[tuple[str, float, str], ...] = (
    ("math", 4, r"\d ?[-+*/x×÷] ?\$?\d[^=\n]{0,30}= ?\$?<{0,2}\d|####"),
    (
        "coding",
        3,
        r"```|\bdef \w+\(|#include|\bSELECT\b.{1,200}\bFROM\b|</[a-z]|[;{]\n|\bimport \w+(?:\n| as)|console\.log|"
        r"^\s*for .{1,60}:\n|^#!/|\bpublic (?:static|class)\b|\bfunction\b.{0,20}\(|\w = \w+\(.*\)\n|\$\(",
    ),
    ("brainstorming", 0.7, r"^\s*(?:1[.)]|[-*•]) "),
)
"""What a response begins with, as it is written."""


def of_words(patterns: str) -> re.Pattern[str]:
    """One pattern for all lines."""
    # At the border of a word, and only there, the alternatives are tried: without that it takes five times as long.
    lines = [line.strip() for line in patterns.split("\n") if line.strip()]
    return re.compile(rf"\b(?:{'|'.join(lines)})(?!\w)")
