"""What the start page offers to try."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "pocket": (
        ("en", "a white cat in the rain"),
        ("fr", "trois papillons verts la nuit"),
        ("de", "zwei gelbe Vögel im Wald"),
        ("es", "un caballo rojo en la ciudad"),
        ("en", "orange cats to the left of white trees"),
        ("de", "ein gelber Ballon im Regen"),
    ),
}
"""(language, text) by profile"""
OTHERS = (
    ("en", "a dog running on the beach"),
    ("en", "people at a market"),
    ("fr", "un village sous la neige"),
    ("de", "Kinder beim Spielen"),
    ("es", "una bicicleta junto a un muro"),
)
LANGUAGES = {"en": "English", "fr": "Français", "de": "Deutsch", "es": "Español"}


def examples_for(profile_name: str) -> tuple[tuple[str, str], ...]:
    """Return (language, text) pairs that the profile's models understand."""
    return EXAMPLES.get(profile_name, OTHERS)
