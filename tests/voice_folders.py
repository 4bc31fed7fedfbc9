"""Whisper folders with random weights, in the layout that CTranslate2's converter gives."""

from __future__ import annotations

from pathlib import Path

WORDS = ("one", "two", "three", "boats", "cats", "d'eau", "arc-en-ciel")
TINY = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_layers": 1, "decoder_layers": 1}


def save_whisper(folder: Path, *, window: int = 30, bands: int = 80) -> Path:
    """Save a multilingual Whisper that hears `window` seconds at once in `bands` mel bands.

    Whisper large-v3 and turbo have 128 bands, all others 80.
    """
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from training.pocket.voice.model import build_tokenizer, convert

    torch.manual_seed(7)
    tokenizer = build_tokenizer(WORDS)
    end = tokenizer.token_to_id("<|endoftext|>")
    config = WhisperConfig(
        **TINY,
        vocab_size=tokenizer.get_vocab_size(),
        num_mel_bins=bands,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_source_positions=window * 50,
        max_target_positions=448,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=end + 1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    return convert(model, tokenizer, folder, window=window)
