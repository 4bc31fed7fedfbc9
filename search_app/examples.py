"""What the start page offers to try."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "pocket": (
        ("en", "a red boat on the sea"),
        ("fr", "deux chats noirs dans un pré"),
        ("de", "ein gelber Ballon in der Nacht"),
        ("es", "una casa azul en el desierto"),
        ("en", "a white umbrella in the rain"),
        ("fr", "une voiture rouge en ville"),
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
