"""A text as every tokeniser reads it alike.

Elasticsearch's tokenisers and the reference ones disagree about characters that no model was trained on:
emoji are dropped or unknown, a no-break space separates words or does not, the names of special tokens are
special or not. Texts are therefore made plain before they are embedded, wherever the model runs.
"""

from __future__ import annotations

import re
import unicodedata

LONGEST_WORD = 512
SPECIAL = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK)\]")
REPLACEMENT = "\ufffd"
VARIATION_SELECTORS = range(0xFE00, 0xFE10)


def plain_text(text: str) -> str:
    """Return `text` composed (NFC), with single spaces, without emoji, control characters and the like."""
    composed = unicodedata.normalize("NFC", text)
    words = "".join(_plain(letter) for letter in composed).split()
    return SPECIAL.sub(r"[ \1 ]", " ".join(word[:LONGEST_WORD] for word in words))


def _plain(letter: str) -> str:
    """Return the letter, a space, or nothing."""
    category = unicodedata.category(letter)
    if category.startswith("Z") or letter in "\t\n\r":
        return " "
    is_dropped = (
        category.startswith("C")
        or ord(letter) > 0xFFFF
        or ord(letter) in VARIATION_SELECTORS
        or letter == REPLACEMENT
    )
    return "" if is_dropped else letter
