"""Captions cut into words as the official COCO caption evaluation cuts them, so that its scores can be met exactly.

The evaluation (pycocoevalcap 1.2) runs Stanford's PTBTokenizer 3.4.1 with `-preserveLines -lowerCase`, then drops
marks. That is a longest-match lexer: of the rules that match at a place, the one that reaches furthest wins, what it
wants to follow included; of several, the first. The table below is our wording of them; its abbreviations are what
the original answers for every word of up to four letters, and for some longer ones. Not the same: letters that Unicode
gained after version 6 are words here and vanish there, soft hyphens stay there in some addresses; and line breaks other
than "\\n" shift its captions.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

# The official list holds -LRB-, -RRB-, -LCB- and -RCB- too, which text in lower case never meets: "(" stays as "-lrb-".
_DROPPED = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", ""))
_LINE_BREAKS = dict.fromkeys(map(ord, "\n\r\v\f\x85\u2028\u2029"), " ")


def ptb_tokenize_all(captions: Sequence[str]) -> list[str]:
    """The words of each caption, joined by a space: "The cat's (2) toys." is "the cat 's -lrb- 2 -rrb- toys".

    The evaluation reads the captions of one call as one text, a line each, and a few rules look over the line's end:
    "the letter L." keeps its full stop, but not before a caption that begins with "The". So the order of captions
    decides. A mixed fraction or a phone number is one word, with no-break spaces inside. Takes any strings, in linear
    time.
    """
    if not captions:
        return []
    text = "\n".join(caption.translate(_LINE_BREAKS) for caption in captions)
    lines = " ".join(word.lower() for word in _tokens(text)).split("\n")
    return [" ".join(word for word in line.rstrip().split(" ") if word not in _DROPPED) for line in lines]


def ptb_tokenize(text: str) -> str:
    """The words of one caption, whatever its neighbours are: as the evaluation cuts it before an empty caption."""
    return ptb_tokenize_all([text, ""])[0]


def _tokens(text: str) -> Iterator[str]:
    """Words, and the line breaks between them."""
    place = 0
    hopeless: dict[_Rule, int] = {}  # a rule matches from no place before this one: what keeps time linear
    while place < len(text):
        if plain := _PLAIN.match(text, place):
            if token := plain[plain.lastindex]:
                yield token
            place = plain.end()
            continue
        longest, write = None, None
        for rule in _rules_at(text[place]):
            if rule.reach and place < hopeless.get(rule, 0):
                continue
            match = rule.pattern.match(text, place)
            if match is None:
                if rule.reach and (reached := rule.reach.match(text, place)):
                    hopeless[rule] = reached.end()
            elif longest is None or match.end() > longest.end():
                longest, write = match, rule.write
        if longest is None:
            place += 1  # white space, or a sign that the original cannot read
        else:
            yield write(longest[1]) if write else longest[1]
            place = longest.end(1)


@dataclass(frozen=True, eq=False)
class _Rule:
    """`first` is what a word may begin with, `pattern` the word (group 1) and what must follow.

    `reach`: if `pattern` does not match here, it matches from no place within. Only where a try can look far ahead.
    """

    first: re.Pattern[str]
    pattern: re.Pattern[str]
    write: Callable[[str], str] | None
    reach: re.Pattern[str] | None


@cache
def _rules() -> tuple[_Rule, ...]:
    """The table, compiled when it is first needed: that takes as long as a third of an import of JAX."""
    return tuple(
        _Rule(re.compile(first), re.compile(pattern), write, re.compile(reach) if reach else None)
        for first, pattern, write, reach in _TABLE
    )


@lru_cache(maxsize=2**13)
def _rules_at(char: str) -> tuple[_Rule, ...]:
    return tuple(rule for rule in _rules() if rule.first.match(char))


def _ranges(belongs: Callable[[str], bool]) -> str:
    """The characters of the basic plane that belong, as a regular expression writes them inside brackets."""
    inside = [False, *(belongs(chr(code)) for code in range(0x10000)), False]
    edges = [code for code in range(0x10001) if inside[code] != inside[code + 1]]
    return "".join(f"\\u{first:04x}-\\u{end - 1:04x}" for first, end in zip(edges[::2], edges[1::2], strict=True))


def _in_word(char: str) -> bool:
    """Letters, the soft hyphen, and what the original counts as one: marks of the scripts before Tibetan."""
    kind = unicodedata.category(char)
    mark = (kind[0] == "M" and char < "\u0ed0") or (kind == "Sk" and "\u02c2" <= char <= "\u0385")
    return char.isalpha() or mark or char == "\xad" or "\u055a" <= char <= "\u055f"


def _any(words: str) -> str:
    """One of these words, in capitals or not, except for a capital in brackets."""
    return "(?i:" + re.sub(r"\[([A-Z])\]", r"(?-i:\1)", "|".join(words.split())) + ")"


# How a word is written.


def _constant(word: str) -> Callable[[str], str]:
    return lambda _: word


def _replace(table: dict[str, str]) -> Callable[[str], str]:
    either = re.compile("|".join(map(re.escape, table)), re.IGNORECASE)
    return lambda word: either.sub(lambda match: table[match[0].lower()], word)


def _without_soft_hyphens(word: str) -> str:
    return word.replace("\xad", "") or "-"


def _dashes(word: str) -> str:
    return "--" if len(word) in (3, 4) else word


_quotes = _replace(
    {"&apos;": "'", '"': "''", "&quot;": "''"}
    | dict.fromkeys("\x91‘‛‹", "`")
    | dict.fromkeys("\x92’›", "'")
    | dict.fromkeys("\x93“«", "``")
    | dict.fromkeys("\x94”»", "''")
)
_ampersand = _replace({"&amp;": "&"})
_fraction = _replace({"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"})
_money = _replace({"¢": "cents", "£": "#"} | dict.fromkeys("\x80¤\u20a0€", "$"))
_brackets = _replace({"{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-", "(": "-lrb-", ")": "-rrb-"})
_spaces_inside = _replace({" ": "\xa0"})
_one_word = _replace({" ": "\xa0", "(": "-lrb-", ")": "-rrb-"})

# What words are made of. Everything is possessive (`++`) that may be, or else long text would take quadratic time.
# Groups are atomic instead (`(?>(?:ab)*)`): Python before 3.11.5 matches a possessive group wrongly (CPython 106052).
_SPACE = r"[ \t\xa0\u2000-\u200a\u3000]"
_SPACES = rf"(?>(?:{_SPACE}|\n)+)"
_A, _D, _W = _ranges(str.isalpha), _ranges(str.isdecimal), _ranges(_in_word)
_AD = _A + _D
_LETTER = rf"(?:[{_W}]|&[aeiouAEIOU](?i:acute|grave|uml);)"
_WORD = rf"{_LETTER}(?>(?:{_LETTER}|[{_D}])*)(?>(?:[.!?]{_LETTER}(?>(?:{_LETTER}|[{_D}])*))*)"
_APOS = r"(?:['\x92’]|(?i:&apos;))"
_APOS_INSIDE = r"(?:['\x92’`\x91‘‛]|(?i:&apos;))"
_AUXILIARY = rf"{_APOS}(?:[msdMSD]|(?i:re|ve|ll))"
_MARK = r"[,;:\u3001]"
_PART = r"[.:,\xad\u066b\u066c]"
_NUMBER = rf"[-+]?(?:[{_D}]++(?>(?:{_PART}[{_D}]++)*)|(?>(?:{_PART}[{_D}]++)+))"
_FRACTION = rf"(?:[{_D}]{{1,4}}[- \xa0])?[{_D}]{{1,4}}(?:\\?/|⁄)[{_D}]{{1,4}}"
_PHONE = (
    r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])[0-9]{3,4}[- \xa0]?[0-9]{3,5}"
    r"|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
)
_COUNTRIES = r"(?i:(?:Canada|Sino|Korean|EU|Japan|non)-U\.S|U\.S\.-(?:U\.S\.S\.R|U\.K))"
_ACRONYM = rf"(?:[A-Za-z](?>(?:\.[A-Za-z])*)|{_COUNTRIES})"
_LONG_ACRONYM = rf"(?:[A-Za-z](?>(?:\.[A-Za-z])+)|{_COUNTRIES})"
_PIECE = rf"(?:[dDoOlL]{_APOS_INSIDE}[{_AD}])?[{_AD}]++"
_HYPHENATED = rf"{_PIECE}(?>(?:[-_\u058a\u2010\u2011]{_PIECE})*)"
_LIST = r"[A-Za-z0-9][A-Za-z0-9.,\xad]*+"
_LIST_HYPHENATED = rf"{_LIST}(?>(?:-(?:{_LONG_ACRONYM}\.|[A-Za-z0-9\xad]++))+)"
_SLASHED = r"[A-Za-z0-9]++(?:-[A-Za-z]++){0,2}"
_CAPITALS = r"[A-Z]++(?>(?:(?:[+&]|(?i:&amp;))[A-Z]++)+)"
_FILE_KINDS = """
    bat bmp c cgi class cpp dll docx? exe gif gz h html? jar java jpe?g mov mp3 pdf php pl png ppt ps py sql tar txt wav
    x xml zip
"""
_TAG_NAME = r"[A-Za-z][A-Za-z0-9_:.\-]*+"
# As every quote opens or closes one value, no more than three tags can try the same text: time stays linear.
_TAG_VALUE = r"(?:'[^']*+'|\"[^\"]*+\")"
_TAG = rf"<(?:{_TAG_NAME}(?>(?: ++{_TAG_NAME}(?>(?: *+= *+{_TAG_VALUE})?))*) *+/?|/{_TAG_NAME}) *+>"
_DECLARATION = r"<[!?][A-Za-z\-][^>\n]*+"  # before its ">"
_URL_END = r"[^ \t\n\"<>|.!?(){},\-]"
_PATH = rf"(?:/[^ \t\n\"<>|()]+{_URL_END})?"
_HOST = r"[^ \t\n\"`'<>|.!?(){},-_$]"  # without all from the comma to the underscore, digits and capitals too
_WWW = r"[^ \t\n\"<>|.!?(){},"
_MAIL = r"[^ \t\n\"<>|(){}\xa0"
_DOMAIN = rf"{_MAIL}.]++(?>(?:\.{_MAIL}.]++)*)"
_OPEN = r"(?:<|(?i:&lt;))"

# Abbreviations keep their full stop, the first before any two signs. Letters in brackets are capitals only.
_ABBREVIATIONS = """
    al ala apr ariz assn aug bancorp bhd bldg blvd bros calif colo conn corp cos? ct dak dec ed\\.d esq est etc ext feb
    fla fri ga inc ind intl jan jr jul jun kans? ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn ph\\.d
    plc pp?t[ey]s? rd rt sept? seq sq sr sys tel tenn thu thurs tues? univ va vt wed wisc? wyo [A]rk [A]z [D]el [I]ll
    [L]a [M]ass [M]iss [O]re [P]a [T]ex [W]ash
"""
_TITLES = """
    a\\.k\\.a adj adm adv alex assoc asst attys? ave brig capt cf cie cmdr col comdr cpl dept det drs? elec ens ft gen
    govs? hon insp invt jos lieut lt maj messrs mfg mlle mme mrs? ms msgr mt mtg natl pfc ph pres profs? pvt reps? rev
    sens? sfc sgt spc ste? supts? treas vs wm
"""
_BEFORE_NUMBERS = "art ca figs? nos? op pp prop"
# A single letter is no abbreviation before these, on its line or the next ones; their first letter is a capital.
_STARTS = """
    A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Mr\\. Ms\\.
    Now Once One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You
"""
_START = rf"(?:{'|'.join(f'{word[0]}(?i:{word[1:]})' for word in _STARTS.split())}|{_TAG})"

# Apostrophes that belong to the word, what reaches furthest first.
_APOSTROPHES = "|".join((
    rf"[{_A}]+[aeiouyAEIOUY]{_APOS_INSIDE}[aeiouA-Z][{_A}]*+|[A-HJ-XZn]{_APOS_INSIDE}[{_A}]{{2,}}+",
    r"(?i:cont'd\.?|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l)",
    rf"{_APOS}[2-9]0(?i:s)|{_APOS}(?i:till?|cause|em)|{_APOS}(?i:n){_APOS}?",
    rf"(?i:Dunkin|somethin|ol){_APOS}|[lLdDjJ]{_APOS}",
))  # fmt: skip
_SPECIAL = rf"(?i:-(?:[RL][RCS]B)-|C\.D\.s|pro-|anti-|S(?:&|&amp;)P-500|S(?:&|&amp;)Ls|Cap{_APOS}n|c{_APOS}est)"
_FACES = r"[\^x=~<>]\.\[\^x=~<>\]|[-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\)"
_SYMBOLS = (
    r"[+%&~^|\\¦§¨©¬®¯°-´¶-¹×÷\u0387\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060a\u060c\u0614"
    r"\u061b\u061e\u066a\u066d\u0703-\u070d\u07f6-\u07f8\u0964\u0965\u0e4f\u1fbd\u2016\u2017\u2020-\u2023"
    r"\u2030-\u2038\u203b\u203e-\u2042\u2044\u207a-\u207e\u208a-\u208e\u2100-\u214f\u2190-\u2bff\u3012\u30fb"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]"
)
_STOPS = r"[.¡¿\u037e\u0589\u061f\u06d4\u0700-\u0702\u07fa\u3002]"

# Most words need no rule: plain letters before a space, line breaks, and spaces.
_PLAIN = re.compile(rf"(?!(?i:cannot|gonna|gotta|lemme|gimme|wanna)\b)([A-Za-z]++)(?=,?[ \n])|(\n)|[ \t]{_SPACE}*+()")

_L, _LD, _Q = rf"[&{_W}]", rf"[&{_W}{_D}]", r"['\x92’&]"  # first characters: of a word, of a number too, apostrophes
_TABLE: tuple[tuple[str, str, Callable[[str], str] | None, str | None], ...] = (
    ("[cCfF]", r"((?i:c\+\+|[cf]#))", None, None),
    ("[cC]", r"((?i:can))(?i:not)", None, None),
    ("[']", r"((?i:'t))(?i:was)", None, None),
    (_Q, rf"({_APOS}(?i:t))(?i:is)", _quotes, None),
    ("[gGlLwW]", r"((?i:go(?=nna)n|go(?=tta)t|lem(?=me)|gim(?=me)|wan(?=na)))(?:..)", None, None),
    ("<", rf"({_DECLARATION}>)", _spaces_inside, _DECLARATION),
    ("<", rf"({_TAG})", _spaces_inside, None),
    ("[&\x96\x97–—―]", r"((?i:&(?:MD|mdash|ndash);)|[\x96\x97–—―])", _constant("--"), None),
    ("&", r"((?i:&amp;))", _ampersand, None),
    ("&", r"((?i:&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);))", None, None),
    (_L, rf"({_WORD}){_AUXILIARY}", _without_soft_hyphens, None),
    (_L, rf"([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*)(?i:n){_APOS_INSIDE}(?i:t)", _without_soft_hyphens, None),
    (_L, rf"({_WORD})", _without_soft_hyphens, None),
    (rf"[{_A}'\x92’&]", rf"({_APOSTROPHES})", None, None),
    ("[yY]", rf"([yY]{_APOS})[{_A}]", None, None),
    ("[hH]", rf"((?i:https?)://[^ \t\n\"<>|(){{}}]+{_URL_END})", None, None),
    ("[wW]", rf"((?i:www)\.(?:{_WWW}]+\.)+[a-zA-Z]{{2,4}}{_PATH})", None, rf"(?i:www)\.(?>(?:{_WWW}]++\.)*)"),
    ("[wW]", rf"((?i:www)\.(?:{_WWW}/]+\.)+[a-zA-Z]{{2,4}}{_PATH})", None, rf"(?i:www)\.(?>(?:{_WWW}/]++\.)*)"),
    (_HOST, rf"((?:{_HOST}+\.)+(?i:com|net|org|edu){_PATH})", None, rf"{_HOST}++(?>(?:\.{_HOST}++)*)"),
    ("[<&A-Za-z0-9]", rf"({_OPEN}?[a-zA-Z0-9]{_MAIL}]*@{_DOMAIN}>?)", None, rf"{_OPEN}?[a-zA-Z0-9]{_MAIL}]*+"),
    ("[@#]", rf"(@[a-zA-Z_][a-zA-Z_0-9]*+|#{_LETTER}++)", None, None),
    (_Q, rf"({_AUXILIARY})[^A-Za-z]", _quotes, None),
    ("[nN]", rf"([nN]{_APOS_INSIDE}[tT])", _quotes, None),
    (rf"[{_D}]", rf"([{_D}]{{1,2}}[-/][{_D}]{{1,2}}[-/][{_D}]{{2,4}})", None, None),
    (rf"[-+.:,\xad\u066b\u066c{_D}]", rf"({_NUMBER})", _without_soft_hyphens, None),
    ("[\xb9\xb2\xb3\u2070-\u208b]", r"([\u207a\u207b\u208a\u208b]?(?:[⁰¹²³⁴-⁹]++|[₀-₉]++))", None, None),
    (rf"[{_D}]", rf"({_FRACTION})", _one_word, None),
    ("[¼½¾⅓-⅞]", r"([¼½¾⅓-⅞])", _fraction, None),
    ("[-cCpPaAsS]", rf"({_SPECIAL})", _ampersand, None),
    ("[A-Za-z0-9]", rf"({_SLASHED}(?:\\?/{_SLASHED}){{1,2}})", None, None),
    ("[A-Z$#]", r"([A-Z]*+\$|#)", None, None),
    ("[¢£¤¥\x80-\uffe6]", r"([¢£¤¥\x80₠€\u060b\u0e3f\u20a4\uffe0\uffe1\uffe5\uffe6])", _money, None),
    ("[A-Za-z]", rf"([A-Za-z])\.{_SPACES}{_START}(?:{_SPACE}|\n)", None, None),
    ("[A-Za-z]", rf"([A-Za-z])\.{_SPACES}{_DECLARATION}>(?:{_SPACE}|\n)", None, rf"[A-Za-z]\.{_SPACES}{_DECLARATION}"),
    ("[A-Za-z]", rf"({_any(_BEFORE_NUMBERS)}\.)(?:{_SPACE}|\n)?[{_D}]", None, None),
    ("[A-Za-z]", rf"({_any(_ABBREVIATIONS)}\.)(?>(?s:..)?)", None, None),
    ("[A-Za-z]", rf"((?:{_any(_TITLES)}|{_ACRONYM})\.)", None, None),
    ("[A-Za-z]", rf"({_ACRONYM})(?:{_SPACE}|\n)", None, None),
    (_Q, rf"({_APOS}[0-9][0-9])(?:{_SPACE}|\n)", None, None),
    (
        "[A-Za-z0-9]",
        rf"([A-Za-z0-9]++(?:\.[A-Za-z0-9]++)*\.{_any(_FILE_KINDS)})(?:{_SPACE}|[\n.?!,])",
        None,
        r"[A-Za-z0-9]++(?>(?:\.[A-Za-z0-9]++)*)",
    ),
    (_L, rf"({_WORD}\.){_MARK}", _without_soft_hyphens, None),
    ("[(+0-9]", rf"({_PHONE})", _one_word, None),
    ('["&]', r"(\"|(?i:&quot;))", _quotes, None),
    ("[<&]", rf"({_OPEN})", _constant("<"), None),
    ("[>&]", r"(>|(?i:&gt;))", _constant(">"), None),
    ("[<>:;=]", r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]", _one_word, None),
    ("[-^x=~<>'(]", rf"({_FACES})", _one_word, None),
    ("[][(){}]", r"([][(){}])", _brackets, None),
    ("-", r"(-++)", _dashes, None),
    ("[.\x85…]", r"(\.{3,5}|(?:\.[ \xa0]){2,4}\.|[\x85…])", _constant("..."), None),
    (r"[@#_*\\]", r"(@++|#++|_++|\*++|(?:\\\*){1,3})", None, None),
    (rf"{_MARK}|{_STOPS}|[?!=/]", rf"({_MARK}|{_STOPS}|[?!]++|=|/)", None, None),
    ("[A-Za-z0-9]", rf"({_LIST_HYPHENATED}\.){_MARK}", _without_soft_hyphens, _LIST),
    ("[A-Za-z0-9]", rf"({_LIST_HYPHENATED})", _without_soft_hyphens, _LIST),
    (rf"[{_AD}]", rf"({_HYPHENATED}\.){_MARK}", None, None),
    (rf"[{_AD}]", rf"({_HYPHENATED})", None, None),
    ("[A-Z]", rf"({_CAPITALS}\.){_MARK}", _ampersand, None),
    ("[A-Z]", rf"({_CAPITALS})", _ampersand, None),
    (_Q, r"(')[A-Za-z][^ \t\n\xa0]", _quotes, None),
    (_Q, rf"({_AUXILIARY})", _quotes, None),
    (r"['`‘-‟\x91-\x94‹›«»&]", rf"(''|[`‘-‟\x91-\x94‹›«»]{{1,2}}|{_APOS})", _quotes, None),
    ("[<>]", r"(<<|>>)", None, None),
    (_SYMBOLS, rf"({_SYMBOLS})", None, None),
    ("&", r"(&nbsp;)", _constant("-"), None),
)
