"""Counting the words that a listener got wrong."""

from __future__ import annotations

import re


def word_errors(heard: str, said: str) -> tuple[int, int]:
    """Return the word errors (changed, missing, invented, by the shortest edit) and the number of words said.

    Case and punctuation do not count.
    """
    got, want = (re.findall(r"[\w'-]+", text.lower()) for text in (heard, said))
    row = list(range(len(got) + 1))
    for i, word in enumerate(want, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(got, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1], len(want)
