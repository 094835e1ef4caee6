"""The tokenizer of the official COCO caption evaluation, without its Java.

The evaluation (Chen et al. 2015, https://arxiv.org/abs/1504.00325) runs Stanford's PTBTokenizer 3.4.1, a Java lexer,
with ``-preserveLines -lowerCase``, then drops punctuation. The rules below reproduce what that lexer does on captions:
at each position the longest match wins; between equal lengths, the first rule wins. Its oddities are kept, because
scores depend on them: brackets stay as ``-lrb-``, because lower-casing comes before punctuation is dropped; ``?!``
stays, because only single marks are dropped; a mixed number is one word with a no-break space inside. One oddity is not
kept: the lexer reads past the end of a line, so ``sector c.`` loses its full stop only if the next caption starts a
sentence. Here it always loses it.
"""

import re
from collections.abc import Iterator, Sequence


def _any_of(words: str) -> str:
    return "(?:" + "|".join(words.split()) + ")"


_ABBREVIATION = _any_of("""
    mr mrs ms dr prof gen col capt cmdr maj lt sgt cpl pvt adm sen rep gov pres rev hon supt insp det messrs mme mlle
    jr sr esq md ph st ste ave blvd rd mt ft sq ct bldg dept assoc assn univ natl intl mfg inc co corp cos ltd bros plc
    bhd cie etc vs al cf est ext tel adj adv elec jos wm alex jan feb mar apr jun jul aug sept sep oct nov dec mon tues
    tue wed thurs thu fri ariz calif colo conn fla ga ind kan ky mich minn mo mont neb nev okla penn tenn va vt wis wyo
    ala""")
_CAPITALIZED_ABBREVIATION = _any_of("Ark Az Del Ill La Mass Miss Ore Pa Tex Wash ARK AZ DEL ILL LA MASS MISS ORE PA")
_ABBREVIATION_BEFORE_NUMBER = _any_of("nos no figs fig pp art op ca")
_SENTENCE_START = _any_of(r"""
    A After An As At But Here He Her However If In It Many Mr\. Once One Our She Since Some So Such That Their The Then
    There These They This We What When While You""")
_ELISION = _any_of("cap'n c'mon ev'ry nat'l s'mores ol' 'cause 'em 'til 'tis 'twas more'n y'all")

_LETTER = r"[^\W\d_ª²³¹º¼½¾⅓⅔⅛⅜⅝⅞]"
_WORD = rf"(?:[0-9]|{_LETTER}[\u0300-\u036f]*)+"
_RULES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_WORD}(?:[-_/]{_WORD})*",  # two-story, and/or, 10-year-old
        rf"\d+(?:[.,]\d+)+(?:-{_WORD})+",  # 10,000-seat
        r"[-+]?(?:\d+|[.,:]\d+)(?:[.,:]\d+)*",  # 10:30, 1,000, -5, .5
        r"\d+[- ]\d+/\d+|\(\d{2,3}\) ?\d{3}[- ]?\d{4}",  # 22 3/4, (555) 555-1234
        rf"{_LETTER}(?:{_WORD})?(?:\.{_LETTER}(?:{_WORD})?)+",  # example.com
        rf"{_WORD}(?:[?!]{_WORD})+|{_WORD}\.(?=[,;])",  # yes!no, etc.,
        rf"(?:{_LETTER}\.)+(?:-{_WORD})+|(?:{_LETTER}\.){{2,}}",  # u.s.-made, p.m.
        rf"{_LETTER}\.(?!\s*$|\s+{_SENTENCE_START}\s)",  # j. smith
        rf"(?:(?i:{_ABBREVIATION})|{_CAPITALIZED_ABBREVIATION})\.(?:-{_WORD})*",  # mr.
        rf"(?i:{_ABBREVIATION_BEFORE_NUMBER})\.(?=\s*\d)",  # no. 5
        rf"[A-HJ-XZdlno]'(?:{_LETTER}){{2,}}(?:-{_WORD})*|[dljDLJ]'",  # o'clock
        rf"{_LETTER}*[AEIOUYaeiouy]'[AEIOUaeiou]{_LETTER}*",  # ma'am
        rf"(?i:{_ELISION})|'\d\ds|'\d\d(?=\s|$)|'n'|'n(?!\w)",  # '50s, rock 'n' roll
        r"(?i:'(?:s|d|m|re|ve|ll)(?!\w)|n't)",  # dog 's, is n't
        r"[A-Z]+&[A-Z]+|(?:US|A|C)\$|[cC]\+\+",  # AT&T
        r"@\w+|#[A-Za-z]+|https?://[^\s<>\"']*[^\s<>\"'.,;:!?()]",
        r"<[/!?]?[A-Za-z-][^<>=,()'\\]*>|<<|>>",  # <unk>
        r"[:;=]['-]?[()DPp\]\\](?!\w)|\^_\^|-_-",  # :-)
        r"[?!]+|-{2,}|_+|\*+|''|``",
    )
)
# me@x.com, in two parts: as one rule, which looks for an @ in all that is left of a run of characters and does so again
# at each mark of "......", it would take a time quadratic in the run's length. The others read little past their match.
_LOCAL_PART, _DOMAIN = re.compile(r"[^\s@]+"), re.compile(r"@[^\s@]+")
# Most captions, in one match: words between spaces and commas, and at the end one with a full stop that is no
# abbreviation's.
_PLAIN_WORDS = re.compile(
    rf"((?:\s+|[A-Za-z]++(?=[\s,]|\Z)|(?!(?:(?i:{_ABBREVIATION})|{_CAPITALIZED_ABBREVIATION})\.)[A-Za-z]++(?=\.\s*\Z))+)"
    r"(?:\.\s*\Z)?"
)
# Nine captions in ten: letters, spaces and commas, and at the end a full stop, which an abbreviation would keep.
_LETTERS_ALONE = re.compile(r"([A-Za-z, \t\n]*)\.?[ \t\n]*")
_ABBREVIATIONS = frozenset(re.findall("[a-z]+", f"{_ABBREVIATION} {_CAPITALIZED_ABBREVIATION}".lower()))
_CONTRACTION = re.compile(r"(?<=[^\W_])(?='(?:s|d|m|re|ve|ll)(?!\w)|n't(?!\w))", re.IGNORECASE)
_UNKNOWN_CHARACTER = re.compile(r"[^\S ]|[\x00-\x1f\x7f\u200b-\u200f\ufeff\U00010000-\U0010ffff]")
_NORMAL = re.compile(r"[ -%(-~]*")  # printable ASCII except & and ', with which the spellings and contractions begin
_DROPPED = frozenset(["'", "''", "`", "``", '"', ".", "?", "!", ",", ":", ";", "-"])

_SPELLINGS = {
    **dict.fromkeys("\u201c\u201d\u00ab\u00bb", ' " '),
    **dict.fromkeys("\u2018\u2039\u203a", " ` "),
    **dict.fromkeys("\u2013\u2014\u2015\u2026", " -- "),
    # Two spaces, because 3½ is two words where 3 1/2 is one.
    **dict(zip("½¼¾⅓⅔", ("  1/2 ", "  1/4 ", "  3/4 ", "  1/3 ", "  2/3 "), strict=True)),
    **{"\u2019": "'", "€": "$", "£": "#", "¢": " cents ", "\u00ad": ""},
    **{"&amp;": "&", "&lt;": " < ", "&gt;": " > ", "&quot;": '"', "&apos;": "'", "&nbsp;": " "},
}
_SPELLING = re.compile("|".join(_SPELLINGS))
_BRACKETS = dict(zip("()[]{}", ("-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"), strict=True))
_OUTPUT_CHARACTERS = str.maketrans({**_BRACKETS, " ": "\u00a0"})
_SPLIT_WORDS: dict[str, Sequence[str]] = {
    parts.replace("|", ""): parts.split("|")
    for parts in ("can|not", "gim|me", "gon|na", "got|ta", "lem|me", "wan|na", "more|'n", "'t|is", "'t|was", "y'|all")
}


def tokenize(caption: str) -> list[str]:
    """Split a caption into the lower-case words that BLEU, ROUGE-L and CIDEr-D are computed on.

    Args:
        caption: text of one caption; line breaks count as spaces.

    Returns:
        Words without punctuation; empty if the caption is only punctuation.
    """
    if letters := _LETTERS_ALONE.fullmatch(caption):
        words = letters[1].lower().replace(",", " ").split()
        if _SPLIT_WORDS.keys().isdisjoint(words) and _ABBREVIATIONS.isdisjoint(words[-1:]):
            return words
    return [word for token in _lex(_normalize(caption)) for word in _words(token)]


def _normalize(caption: str) -> str:
    if _NORMAL.fullmatch(caption):
        return caption
    text = _SPELLING.sub(lambda match: _SPELLINGS[match[0]], caption)
    return _CONTRACTION.sub(" ", _UNKNOWN_CHARACTER.sub(" ", text))


def _lex(text: str) -> Iterator[str]:
    position, run_end = 0, -1
    while position < len(text):
        if plain := _PLAIN_WORDS.match(text, position):
            position = plain.end()
            yield from plain[1].split()
            continue
        if position > run_end:
            run = _LOCAL_PART.match(text, position)
            run_end = run.end() if run else position
        end = _end_of_longest(text, position, run_end)
        token, position = text[position:end], end
        yield token


def _end_of_longest(text: str, position: int, run_end: int) -> int:
    """Return the end of the longest match at a position, or of its single character if no rule matches.

    Args:
        text: normalized caption.
        position: start of the match.
        run_end: end of the run of characters other than spaces and @ in which the position lies; the position itself
            if it lies in none.
    """
    matches = [match.end() for rule in _RULES if (match := rule.match(text, position))]
    if run_end > position and (domain := _DOMAIN.match(text, run_end)):
        matches.append(domain.end())
    return max(matches, default=position + 1)


def _words(token: str) -> Sequence[str]:
    word = token.lower()
    if not word.isalpha():
        if token in _DROPPED or not token.strip("-"):
            return []
        word = word.translate(_OUTPUT_CHARACTERS)
    return _SPLIT_WORDS.get(word, [word])
