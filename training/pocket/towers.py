"""The two towers and their tokenizer, saved as plain transformers and sentence-transformers folders."""

from __future__ import annotations

import copy
import json
import string
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import DistilBertTokenizerFast

DIMS = 128
IMAGE_SIZE, PATCH = 96, 12
MAX_TOKENS = 64
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = string.ascii_lowercase + string.digits + "ßæœøłđðþı"
MEAN = STD = 0.5
Model = TypeVar("Model", bound=nn.Module)


def make_tokenizer(corpus: Iterable[str], folder: Path) -> DistilBertTokenizerFast:
    """Return a WordPiece tokenizer of the words in `corpus` and every single character, saved in `folder`.

    Case and accents are dropped as BERT does; any other word falls into known pieces or letters.
    """
    from transformers import DistilBertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    pieces = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *string.punctuation]
    pieces += [*"¿¡«»“”‘’„–—…€£°·"]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    plain = DistilBertTokenizerFast(vocab_file=str(vocabulary), do_lower_case=True).backend_tokenizer
    words: set[str] = set()
    for text in corpus:
        normal = plain.normalizer.normalize_str(text)
        words.update(word for word, _ in plain.pre_tokenizer.pre_tokenize_str(normal))
    pieces += sorted(words - set(pieces))
    vocabulary.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    tokenizer = DistilBertTokenizerFast(
        vocab_file=str(vocabulary), do_lower_case=True, model_max_length=MAX_TOKENS
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


class ImageTower(nn.Module):
    """A CLIP vision tower that also gives the hidden states of its patches, for the helper heads."""

    def __init__(self, *, hidden: int = 192, layers: int = 5, heads: int = 4):
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        config = CLIPVisionConfig(
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            image_size=IMAGE_SIZE,
            patch_size=PATCH,
            projection_dim=DIMS,
            hidden_act="gelu",
        )
        # For 65 tokens, plain attention takes half the time of the fused kernel on a CPU.
        self.model = CLIPVisionModelWithProjection._from_config(config, attn_implementation="eager")

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return embeddings `[n, dims]`, not unit length, and patches `[n, 64, hidden]` one layer earlier."""
        out = self.model(pixel_values=pixels, output_hidden_states=True)
        return out.image_embeds, out.hidden_states[-2][:, 1:]

    def save(self, folder: Path) -> None:
        """Write config, fp16 weights and the preprocessor's settings."""
        from transformers import CLIPImageProcessor

        _half(self.model).save_pretrained(folder)
        size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        processor = CLIPImageProcessor(
            size=size, do_center_crop=False, crop_size=size, image_mean=[MEAN] * 3, image_std=[STD] * 3
        )
        processor.save_pretrained(folder)


class TextTower(nn.Module):
    """DistilBERT, the mean over its tokens, and a linear map without bias."""

    def __init__(self, vocabulary: int, *, hidden: int = 160, layers: int = 3, heads: int = 4):
        super().__init__()
        from transformers import DistilBertConfig, DistilBertModel

        config = DistilBertConfig(
            vocab_size=vocabulary,
            dim=hidden,
            hidden_dim=4 * hidden,
            n_layers=layers,
            n_heads=heads,
            max_position_embeddings=MAX_TOKENS,
            dropout=0.0,
            attention_dropout=0.0,
        )
        self.model = DistilBertModel._from_config(config, attn_implementation="eager")
        self.dense = nn.Linear(hidden, DIMS, bias=False)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return embeddings `[n, dims]`, not unit length."""
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[:, :, None].to(states.dtype)
        vectors: torch.Tensor = self.dense((states * weights).sum(1) / weights.sum(1))
        return vectors

    def save(self, folder: Path) -> None:
        """Write a sentence-transformers folder of fp16 weights, beside the tokenizer already there."""
        from safetensors.torch import save_file

        _half(self.model).save_pretrained(folder)
        hidden = self.model.config.dim
        _write(folder / "modules.json", _modules())
        _write(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
        pooling = {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True}
        _write(folder / "1_Pooling" / "config.json", pooling)
        dense = {"in_features": hidden, "out_features": DIMS, "bias": False}
        dense["activation_function"] = "torch.nn.modules.linear.Identity"
        _write(folder / "2_Dense" / "config.json", dense)
        weight = self.dense.weight.detach().half().contiguous()
        save_file({"linear.weight": weight}, folder / "2_Dense" / "model.safetensors")


def _half(model: Model) -> Model:
    return copy.deepcopy(model).half()


def _modules() -> list[dict[str, object]]:
    rows = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(rows)
    ]


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
