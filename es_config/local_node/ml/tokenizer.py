"""Tokenisation on the local node, as Elasticsearch's own `bert` and `mpnet` tokenisers do it.

They differ from the reference implementation in what a query can show: characters beyond the Basic
Multilingual Plane (emoji) and control characters are dropped, a no-break space does not separate words, and
only the mask token is recognised in a text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from es_config.local_node.rest import RestError

LONGEST_CHUNK = 512
LONGEST_WORD = 100
DROPPED = ("Cc", "Cf", "Co", "Cs")
NO_BREAK_SPACES = "\u00a0\u2007\u202f"
IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))


@dataclass(frozen=True)
class Kind:
    """The special tokens of a tokenisation, and how many tensors its models take."""

    start: str
    end: str
    pad: str
    mask: str
    inputs: int
    unknown: str = "[UNK]"


KINDS = {
    "bert": Kind(start="[CLS]", end="[SEP]", pad="[PAD]", mask="[MASK]", inputs=4),
    "mpnet": Kind(start="<s>", end="</s>", pad="<pad>", mask="<mask>", inputs=2),
}


@dataclass(frozen=True)
class Tokens:
    """The token ids of one text, special tokens included."""

    ids: tuple[int, ...]
    is_truncated: bool


class WordPieceTokenizer:
    """Turns texts into token ids with an uploaded vocabulary.

    Raises `RestError` 409 when the vocabulary lacks a special token.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        kind: Kind,
        do_lower_case: bool = False,
        with_special_tokens: bool = True,
        max_sequence_length: int = 512,
    ) -> None:
        self.kind = kind
        self.max_sequence_length = max_sequence_length
        self._lower = do_lower_case
        self._ids = {self._fold(word): number for number, word in enumerate(vocabulary)}
        _check_special_tokens(set(vocabulary), kind, with_special_tokens=with_special_tokens)
        self._unknown = self._ids[self._fold(kind.unknown)]
        special = (kind.start, kind.end) if with_special_tokens else ()
        self._special = tuple(self._ids[self._fold(token)] for token in special)
        self._masks = re.compile(f"({re.escape(kind.mask)})")
        self._pieces = lru_cache(maxsize=8192)(self._word_pieces)

    def encode(self, text: str, *, truncate: str = "first") -> Tokens:
        """Return the ids of `text`, cut to `max_sequence_length`; with `truncate="none"` `RestError` 400."""
        ids = [piece for word in self._words(text) for piece in self._pieces(word)]
        length, room = len(ids) + len(self._special), self.max_sequence_length - len(self._special)
        if length > self.max_sequence_length and truncate == "none":
            raise RestError(
                400,
                f"Input too large. The tokenized input length [{length}] exceeds the maximum sequence length"
                f" [{self.max_sequence_length}]",
            )
        start, end = self._special[:1], self._special[1:]
        return Tokens((*start, *ids[:room], *end), is_truncated=length > self.max_sequence_length)

    def _words(self, text: str) -> list[str]:
        chunks = (part for chunk in _chunks(_without_control(text)) for part in self._masks.split(chunk))
        words = (word for chunk in chunks for word in ([chunk] if chunk == self.kind.mask else _split(chunk)))
        stripped = (_strip_accents(word) if self._lower else word for word in words)
        return [word for word in stripped if word]

    def _word_pieces(self, word: str) -> tuple[int, ...]:
        """Greedy longest match from the left; one unknown token when any part of the word is unknown."""
        if word == self.kind.mask:
            return (self._ids.get(self._fold(word), self._unknown),)
        if len(word) > LONGEST_WORD:
            return (self._unknown,)
        folded, start, found = self._fold(word), 0, []
        while start < len(folded):
            prefix = "##" if start else ""
            ends = range(len(folded), start, -1)
            end = next((end for end in ends if prefix + folded[start:end] in self._ids), None)
            if end is None:
                return (self._unknown,)
            found.append(self._ids[prefix + folded[start:end]])
            start = end
        return tuple(found)

    def _fold(self, word: str) -> str:
        """Lower-case letter by letter, as Java does: every letter stays one letter."""
        return "".join(letter.lower()[0] for letter in word) if self._lower else word


def _check_special_tokens(vocabulary: set[str], kind: Kind, *, with_special_tokens: bool) -> None:
    needed = [kind.unknown, kind.pad, *([kind.start, kind.end] if with_special_tokens else [])]
    missing = next((token for token in needed if token not in vocabulary), None)
    if missing is not None:
        raise RestError(409, f"stored vocabulary is missing required [{missing}] token")


def _without_control(text: str) -> str:
    return "".join(
        letter
        for letter in text
        if letter in "\n\r\t" or (ord(letter) <= 0xFFFF and unicodedata.category(letter) not in DROPPED)
    )


def _chunks(text: str) -> list[str]:
    """Split at Java's white space, and every 512 letters."""
    words = "".join("\n" if _is_space(letter) else letter for letter in text).split("\n")
    return [word[i : i + LONGEST_CHUNK] for word in words for i in range(0, len(word), LONGEST_CHUNK)]


def _is_space(letter: str) -> bool:
    if letter in NO_BREAK_SPACES:
        return False
    return letter in "\n\r\t" or unicodedata.category(letter) in ("Zs", "Zl", "Zp")


def _split(chunk: str) -> list[str]:
    """Every punctuation mark and every ideograph becomes a word of its own."""
    return "".join(f"\n{letter}\n" if _stands_alone(letter) else letter for letter in chunk).split("\n")


@lru_cache(maxsize=4096)
def _stands_alone(letter: str) -> bool:
    code = ord(letter)
    if letter in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" or unicodedata.category(letter).startswith("P"):
        return True
    return any(first <= code <= last for first, last in IDEOGRAPHS)


def _strip_accents(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn")
