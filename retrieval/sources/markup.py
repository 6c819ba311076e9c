"""Wikitext as its parser needs it: what this does not know, written so that it comes out right.

Comments, apostrophes for bold and italics, switches, variants of a language, raised and lowered numbers,
templates for single signs, indented tables, brackets around links.
"""

import html
import re

from pipeline.characters import UNSEEN

# Tags whose contents are no wikitext.
OPAQUE = (
    "ce|chem|graph|hiero|mapframe|maplink|math|nowiki|pre|score|source|syntaxhighlight|templatedata|timeline"
)
OPENING = re.compile(rf"<({OPAQUE})\b[^<>]*(?<!/)>", re.IGNORECASE)
CLOSING = re.compile(rf"</({OPAQUE})\s*>", re.IGNORECASE)
COMMENT = re.compile("<!--.*?(?:-->|\\Z)", re.DOTALL)
SWITCH = re.compile(r"__(?:[^\W\d_]+_?)+?__")  # such as __NOTOC__, in any language
# Tags that end a line or a block: their words are not one.
BLOCK_TAG = re.compile(r"</?(?:blockquote|br|center|d[dlt]|div|hr|li|ol|p|t[dhr]|ul)\b[^<>]*>", re.IGNORECASE)
APOSTROPHES = re.compile("'{2,}")
# Text in several scripts, -{zh-hans:计算机;zh-hant:電腦}-, or kept from conversion, -{台}-.
VARIANTS = re.compile(r"-\{(?!\{)(?:\s*([A-Z+-])\s*\|)?((?:[^{}]|\{\{[^{}]*\}\})*)\}-")
CODE = re.compile(r"\s*(?:zh|sr|sh|kk|ku|uz|iu|gan|shi|tg|crh)(?:-[a-z]+)?\s*:")
UNLATIN = re.compile("[\u0400-\u1fff\u3041-\uffff]")
HIDDEN_FLAGS = "TH-"  # flags of a page's title and of rules for the rest of the page
INDENTED_TABLE = re.compile(r"^[ \t]*[:*#;][:*#; \t]*(?=\{\|)", re.MULTILINE)
BRACKETED_LINK = re.compile(r"\[(\[\[[^\[\]]*\]\])\]")  # an editor's brackets, [[[Paris]]]
# Templates that stand for a sign; without them numbers lose their sign and run together.
SIGNS = {
    "minus": "−", "times": "×", "nbsp": " ", "space": " ", "spaces": " ", "ndash": "–", "en dash": "–",
    "endash": "–", "mdash": "—", "em dash": "—", "snd": " – ", "spnd": " – ", "spaced ndash": " – ",
    "'": "'", "thinsp": " ",
}  # fmt: skip
SIGN = re.compile(rf"\{{\{{\s*({'|'.join(map(re.escape, SIGNS))})\s*\}}\}}", re.IGNORECASE)
SUP_OR_SUB = re.compile(r"\{\{\s*(sup|sub)\s*\|\s*(?:1\s*=)?([^{}|]*)\}\}", re.IGNORECASE)
SMALL = {
    "sup": str.maketrans("0123456789+-−–", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻"),
    "sub": str.maketrans("0123456789+-−–", "₀₁₂₃₄₅₆₇₈₉₊₋₋₋"),
}
NUMBER = re.compile("[0-9+−–-]+")
# Raised after a word or what ends one, lowered after a digit: H2O stays as people search for it.
SET_OFF = re.compile(
    r"(?:(?<=[\w)\]}>'’%°|])<(?=sup)|(?<=\d)<(?=sub))(?P<name>su[bp])\b[^<>]*(?<!/)>"
    r"(?P<contents>(?:(?!</?su[bp]\b).)*)</su[bp]\s*>",
    re.IGNORECASE | re.DOTALL,
)
WITHIN = re.compile(
    r"<ref\b[^<>]*/>|<ref\b.*?</ref\s*>|</?(?:b|big|i|nowiki|small|span)\b[^<>]*>"
    r"|\[\[(?:[^\[\]|]*\|)?|\]\]",
    re.IGNORECASE | re.DOTALL,
)


def set_apart(match: re.Match[str]) -> str:
    """A raised or lowered number in characters of its own, else behind ^ or _: 10⁴, not 104."""
    name = match["name"].lower()
    contents = html.unescape(WITHIN.sub("", match["contents"])).strip()
    if NUMBER.fullmatch(contents):
        return contents.translate(SMALL[name])
    is_number = NUMBER.match(contents) and not re.search("[<{]", contents)
    return f"{'^' if name == 'sup' else '_'}{contents}" if is_number else match[0]


def variant(match: re.Match[str]) -> str:
    """The first of a text's variants; the match itself, as in chemical names, if it is no such text."""
    flag, text = match.groups()
    if flag:
        return "" if flag in HIDDEN_FLAGS else CODE.sub("", text.split(";")[0] if CODE.match(text) else text)
    if CODE.match(text):
        return CODE.sub("", text.split(";")[0])
    return text if UNLATIN.search(text) else match[0]


def unstyled(line: str) -> str:
    """A line without the apostrophes that make text bold or italic; those that are shown stay.

    MediaWiki's rules: of four one is shown, of more than five those above five; and if both bold and italics
    stay open, one of the first three after a word: l'''Iliade'' is l' and italics.
    """
    runs = list(APOSTROPHES.finditer(line))
    if not runs:
        return line
    lengths = [len(run[0]) for run in runs]
    visible = [1 if length == 4 else max(length - 5, 0) for length in lengths]
    bold, italic = sum(length > 2 for length in lengths), sum(length not in (3, 4) for length in lengths)
    if bold % 2 and italic % 2:
        threes = [at for at, length in enumerate(lengths) if length in (3, 4)]
        before = [line[max(runs[at].start() - 2, 0) : runs[at].start()] for at in threes]
        # after a word of one letter, else after another word, else after a space
        ranks = [2 if text[-1:] == " " else 0 if text[:-1] == " " else 1 for text in before]
        if threes:
            visible[threes[ranks.index(min(ranks))]] += 1
    counts = iter(visible)
    return APOSTROPHES.sub(lambda _: "'" * next(counts), line)


def parted(text: str) -> tuple[str, list[str]]:
    """The text with a numbered place for each opaque part, and these parts; an opening alone is left out."""
    last = {match[1].lower(): match.start() for match in CLOSING.finditer(text)}
    pieces, parts, at = list[str](), list[str](), 0
    for opening in OPENING.finditer(text):
        if opening.start() < at:
            continue
        pieces.append(text[at : opening.start()])
        name, at = opening[1].lower(), opening.end()
        if last.get(name, -1) >= at:
            closing = next(match for match in CLOSING.finditer(text, at) if match[1].lower() == name)
            pieces.append(f"\0{len(parts)}\0")
            parts.append(text[opening.start() : closing.end()])
            at = closing.end()
    return "".join([*pieces, text[at:]]), parts


def prepared(wikitext: str) -> str:
    """The wikitext for the parser; what `OPAQUE` tags hold stays as it is."""
    text, opaque = parted(COMMENT.sub("", wikitext.replace("\0", "").translate(UNSEEN)))
    text = SWITCH.sub(lambda match: "" if match[0].upper() == match[0] else match[0], text)
    text = VARIANTS.sub(variant, text)
    text = SUP_OR_SUB.sub(r"<\1>\2</\1>", SIGN.sub(lambda match: SIGNS[match[1].lower()], text))
    text = BRACKETED_LINK.sub(r"&#91;\1&#93;", INDENTED_TABLE.sub("", text))
    text = "\n".join(map(unstyled, text.split("\n")))
    text = re.sub("\0([0-9]+)\0", lambda match: opaque[int(match[1])], text)
    return BLOCK_TAG.sub(r" \g<0> ", SET_OFF.sub(set_apart, text))
