"""What several readers and metrics do to text."""

import re

# Kana, Han characters and their extensions; Korean puts spaces between words.
UNSPACED = re.compile(r"[\u3041-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def single_spaces(text: str) -> str:
    """Any run of white space, no-break spaces included, becomes one space."""
    return " ".join(text.split())


def spaced(text: str) -> str:
    """The text with spaces around each Chinese or Japanese character: nothing else parts their words."""
    return text if text.isascii() else UNSPACED.sub(r" \g<0> ", text)
