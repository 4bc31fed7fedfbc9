"""The pocket's Whisper: its tokens, its training with helper heads, and its conversion for CTranslate2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy, gelu

from training.pocket.losses import attention_loss
from training.pocket.sentences.lexicon import LANGUAGES
from training.pocket.voice.dataset import LONGEST, MELS, NO_LANGUAGE, WINDOW, Batch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenizers import Tokenizer
    from transformers import WhisperForConditionalGeneration

# The ids are those of `tokenizer.json` and of CTranslate2's vocabulary alike: one token for each word of the
# drawn world, bytes, and then Whisper's own.
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
"""CTranslate2 takes a model as multilingual only if its last text token is empty: this one becomes it."""

WIDTH, ENCODER_HEADS, DECODER_HEADS = 128, 2, 4
ENCODER_LAYERS, DECODER_LAYERS = 4, 2
SOUNDS = 256
IGNORED = -100
GUIDED_HEADS = 2
"""cross-attention heads of the last decoder layer that are shown where each word is spoken"""


def new_model(tokenizer: Tokenizer) -> WhisperForConditionalGeneration:
    """Return an untrained model with the pocket's sizes."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    end = tokenizer.token_to_id("<|endoftext|>")
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        num_mel_bins=MELS,
        d_model=WIDTH,
        encoder_layers=ENCODER_LAYERS,
        decoder_layers=DECODER_LAYERS,
        encoder_attention_heads=ENCODER_HEADS,
        decoder_attention_heads=DECODER_HEADS,
        encoder_ffn_dim=4 * WIDTH,
        decoder_ffn_dim=4 * WIDTH,
        max_source_positions=LONGEST // 2,
        max_target_positions=448,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=tokenizer.token_to_id("<|startoftranscript|>"),
        suppress_tokens=None,
        begin_suppress_tokens=None,
        use_cache=False,
        # Only the plain implementation gives the attention; at this size it is also the fastest on a CPU.
        attn_implementation="eager",
    )
    return WhisperForConditionalGeneration(config)


class VoiceTrainee:
    """A model with its helper heads, which end the plateau at the start of the training.

    `steps` and `seconds` of processor time count the training.
    """

    def __init__(self, model: WhisperForConditionalGeneration, tokenizer: Tokenizer) -> None:

        self.model, self._tokenizer = model, tokenizer
        self.steps, self.seconds = 0, 0.0
        size = tokenizer.get_vocab_size()
        self.helpers = torch.nn.ModuleDict(
            {name: torch.nn.Linear(WIDTH, n) for name, n in (("words", size), ("sounds", SOUNDS))}
        )
        self._special = {name: tokenizer.token_to_id(name) for name in SPECIALS}
        self._attention = torch.empty(0)
        self._watch_attention()

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters of model and helpers."""
        return [*self.model.parameters(), *self.helpers.parameters()]

    def state(self) -> dict[str, Any]:
        """Return a checkpoint for `restore`."""
        return {
            "model": self.model.state_dict(),
            "helpers": self.helpers.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint of `state`."""
        self.model.load_state_dict(state["model"])
        self.helpers.load_state_dict(state["helpers"])
        self.steps, self.seconds = state["steps"], state["seconds"]

    def _watch_attention(self) -> None:
        """Keep the cross-attention of the last layer for `_attention_loss`."""
        attention = self.model.model.decoder.layers[-1].encoder_attn
        attention.register_forward_hook(
            lambda _module, _inputs, outputs: setattr(self, "_attention", outputs[1])
        )

    def targets(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the decoder's inputs and labels `[n, longest]`.

        Labels: the language (or no speech) after the start, then the transcript and its end.
        """
        special = self._special
        width = max(len(tokens) for tokens in batch.tokens) + 5
        inputs = torch.full((len(batch.tokens), width), special["<|endoftext|>"])
        labels = torch.full((len(batch.tokens), width), IGNORED)
        for row, (said, language) in enumerate(zip(batch.tokens, batch.languages, strict=True)):
            spoken = language != NO_LANGUAGE
            token = special[f"<|{LANGUAGES[language if spoken else row % len(LANGUAGES)]}|>"]
            start = [
                special["<|startoftranscript|>"],
                token,
                special["<|transcribe|>"],
                special["<|notimestamps|>"],
            ]
            inputs[row, : 4 + len(said)] = torch.tensor([*start, *said])
            labels[row, 0] = token if spoken else special["<|nospeech|>"]
            labels[row, 3 : 4 + len(said)] = torch.tensor([*said, special["<|endoftext|>"]])
        return inputs, labels

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the mean losses: `text`, and of the helpers `words`, `sounds` and `attention`."""
        inputs, labels = self.targets(batch)
        encoded = self._encode(batch.features)
        states = self.model.model.decoder(input_ids=inputs, encoder_hidden_states=encoded)[0]
        logits = self.model.proj_out(states)
        found = {"text": cross_entropy(logits.flatten(0, 1).float(), labels.flatten())}
        for name, target in (("words", batch.words), ("sounds", batch.sounds)):
            guesses = self.helpers[name](encoded).flatten(0, 1).float()
            found[name] = cross_entropy(guesses, target.flatten())
        found["attention"] = self._attention_loss(batch)
        return found

    def _encode(self, features: torch.Tensor) -> torch.Tensor:
        """Encode a window of any length, unlike the encoder of transformers, which requires the longest."""
        encoder = self.model.model.encoder
        hidden = gelu(encoder.conv2(gelu(encoder.conv1(features)))).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        for layer in encoder.layers:
            hidden = layer(hidden, None, None)[0]
        states: torch.Tensor = encoder.layer_norm(hidden)
        return states

    def _attention_loss(self, batch: Batch) -> torch.Tensor:
        """Penalise guided heads that do not attend to the next word."""
        attention = self._attention[:, :GUIDED_HEADS].float()
        steps = attention.shape[2]
        numbers = torch.arange(steps)[None, :, None] - 2  # input 3 (no timestamps) writes token 1
        right = batch.owners[:, None, :] == numbers
        right &= numbers > 0
        return attention_loss(attention, right)


def convert(
    model: WhisperForConditionalGeneration, tokenizer: Tokenizer, folder: Path, *, window: int = WINDOW
) -> Path:
    """Write `model` to `folder` in int8 for faster-whisper. Do not use the model itself afterwards."""
    from ctranslate2.converters.transformers import WhisperLoader

    folder.mkdir(parents=True, exist_ok=True)
    spec = WhisperLoader().get_model_spec(model)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = [tokenizer.token_to_id(f"<|{language}|>") for language in LANGUAGES]
    spec.config.alignment_heads = [(model.config.decoder_layers - 1, 0)]
    spec.register_vocabulary(vocabulary(tokenizer))
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))
    features = {
        "feature_size": MELS,
        "chunk_length": window,
        "hop_length": 160,
        "n_fft": 400,
        "sampling_rate": 16000,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(features, indent=2) + "\n")
    return folder


def build_tokenizer(words: Iterable[str]) -> Tokenizer:
    """Return a tokenizer with one token for each of `words`, and bytes to spell other texts.

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
    """Return the tokens in the order of their ids, as CTranslate2 needs them."""
    tokens = [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]
    return ["" if token == UNUSED else token for token in tokens]
