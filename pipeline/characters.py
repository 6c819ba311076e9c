"""Characters that look alike, show nothing, or belong to scripts that put no spaces between words."""

import re
import unicodedata

# Kana, Han characters and their extensions; Korean puts spaces between words.
HAN = r"\u3041-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
UNSPACED = re.compile(f"[{HAN}]")
MARKS = "".join(c for c in map(chr, range(0x300, 0x3100)) if unicodedata.category(c).startswith("M"))
# Thai, Lao, Burmese and Khmer, whose vowels and tones are marks on the letter before.
THAI = r"\u0e01-\u0e3a\u0e40-\u0eff\u1000-\u109f\u1780-\u17d3\u17dc-\u17ff"
MARKED = re.compile(rf"[{THAI}][{MARKS}]*")
# A word as it stands in a line, or a character of these scripts, with the punctuation after it.
UNIT = re.compile(rf"(?:{UNSPACED.pattern}|{MARKED.pattern})[^\w\s]*|[^\s{HAN}{THAI}]+")
# Soft hyphen, zero-width space, marks of direction, word joiner, byte order mark.
UNSEEN = dict.fromkeys(
    map(ord, "\xad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
)
WORD = re.compile(rf"[\w{MARKS}]+")  # with the vowels that Indic scripts and Arabic write as marks
WIDTHS = re.compile(r"[\uff01-\uffee]+")  # letters, digits and kana of another width than usual


def single_spaces(text: str) -> str:
    """Any run of white space, no-break spaces included, becomes one space."""
    return " ".join(text.split())


def as_seen(text: str) -> str:
    """The text as a reader sees it: characters composed and of their usual width, none that shows nothing."""
    if text.isascii():
        return text
    usual = WIDTHS.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text.translate(UNSEEN))
    return unicodedata.normalize("NFC", usual)


def spaced(text: str) -> str:
    """The text with spaces around each character of a script that puts none between its words."""
    return text if text.isascii() else MARKED.sub(r" \g<0> ", UNSPACED.sub(r" \g<0> ", text))


def words(text: str) -> tuple[str, ...]:
    """The words of a text as it is seen, without case and any punctuation; "1928–1999" is two.

    A character of a script without spaces is one.
    """
    return tuple(WORD.findall(spaced(as_seen(as_seen(text).casefold()))))
