"""The tokens of the pocket's Whisper: one for each word of the drawn world, bytes, and then Whisper's own.

The ids are those of `tokenizer.json` and of CTranslate2's vocabulary alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.pocket.sentences.lexicon import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenizers import Tokenizer

SPACE = "Ġ"
"""how byte-level tokenizers write the space before a word"""

SPECIALS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{language}|>" for language in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
UNUSED = "<|unused|>"
"""Stands where CTranslate2 wants an empty last text token before it takes a model as multilingual."""


def build_tokenizer(words: Iterable[str]) -> Tokenizer:
    """Return a tokenizer with one token for each of `words`, after a space; every other text can be spelled.

    faster-whisper bans the first token of " -" and of " '" at every step, so each of the two is one token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [as_bytes.pre_tokenize_str(f" {word}")[0][0] for word in sorted(set(words))]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*((letter, -10.0) for letter in letters), (f"{SPACE}-", -5.0), (f"{SPACE}'", -5.0)]
    vocabulary += [(piece, -1.0) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = as_bytes
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([UNUSED, *SPECIALS])
    return tokenizer


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """Return the tokens in the order of their ids, as CTranslate2 wants them."""
    tokens = [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]
    return ["" if token == UNUSED else token for token in tokens]
