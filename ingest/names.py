"""Names of files as text that JSON, Elasticsearch and a terminal can take."""

from __future__ import annotations

import os


def printable(name: str) -> str:
    r"""Return a name as valid Unicode: bytes that are no UTF-8 become `\xNN`, all else stays as it is.

    Two different names in one folder keep different texts unless one spells out the other's `\xNN`.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def one_line(text: str) -> str:
    """Return text for a terminal: line breaks and control characters are spelled out, never obeyed."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
