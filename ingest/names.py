"""Names of files as text that JSON, Elasticsearch and a terminal can take."""

from __future__ import annotations

import os
import re
import unicodedata

LONGEST_STEM = 100
"""characters that are kept of an uploaded file's name"""
RAW_EXTENSIONS = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mrw", ".nef", ".nrw"}
    | {".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
"""of cameras' RAW files, whose previews `rawpy` reads"""
EXTENSIONS = RAW_EXTENSIONS | frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    | {".tif", ".tiff", ".heic", ".heif", ".hif", ".avif"}
)


def valid_unicode(name: str) -> str:
    r"""Return a name as valid Unicode: bytes that are no UTF-8 become `\xNN`, all else stays as it is.

    Two different names in one folder keep different texts unless one spells out the other's `\xNN`.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def safe_name(name: str, extension: str) -> str:
    """Return what a file of this name and content is called here: no folders, nothing that a shell obeys.

    Names come from strangers; `extension` is that of the content, and replaces a picture's extension.
    """
    last = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    stem, dot, suffix = last.rpartition(".")
    stem = stem if dot and f".{suffix.lower()}" in EXTENSIONS else last
    kept = "".join(char if char.isprintable() and char not in '<>:"|?*' else "_" for char in stem)
    return f"{kept[:LONGEST_STEM].strip(' ._') or 'picture'}.{extension}"
