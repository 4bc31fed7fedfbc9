"""The pocket's BLIP in training: it starts from the image tower and is shown which patches matter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from demo.world.scene import Scene
from training.pocket.losses import Heads, attention_loss, patch_loss
from training.pocket.sentences.facts import LANGUAGE, FirstChoice, usual_caption
from training.pocket.sentences.grammar import noun_phrase
from training.pocket.sentences.lexicon import RELATION_PHRASES
from training.pocket.sentences.statements import full

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transformers import BertTokenizerFast, BlipForConditionalGeneration, CLIPVisionModelWithProjection

WIDTH, LAYERS, HEADS = 128, 3, 4
VISION_LAYERS = 4
"""after the fourth layer, the image tower's patches know which subject they show"""
LONGEST = 32
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
IGNORED = -100
GUIDED_HEADS = 2


def make_tokenizer(scenes: Iterable[Scene], folder: Path) -> BertTokenizerFast:
    """Return a tokenizer with one token for each word of the scenes' captions, saved in `folder`."""
    from transformers import BertTokenizerFast

    words = {word for scene in scenes for word in usual_caption(scene).split()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIALS, *sorted(words)]) + "\n", encoding="utf-8")
    tokenizer = BertTokenizerFast(
        vocab_file=str(folder / "vocab.txt"), bos_token="[DEC]", model_max_length=LONGEST
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def new_model(
    tokenizer: BertTokenizerFast, tower: CLIPVisionModelWithProjection, pixels: torch.Tensor
) -> BlipForConditionalGeneration:
    """Return a captioner that starts with the first vision layers of the image `tower`."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    seen = tower.config
    vision = {
        "hidden_size": seen.hidden_size,
        "intermediate_size": seen.intermediate_size,
        "num_hidden_layers": VISION_LAYERS,
        "num_attention_heads": seen.num_attention_heads,
        "image_size": seen.image_size,
        "patch_size": seen.patch_size,
        "hidden_act": seen.hidden_act,
        "layer_norm_eps": seen.layer_norm_eps,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "encoder_hidden_size": seen.hidden_size,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": LONGEST + 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }
    config = BlipConfig(vision_config=vision, text_config=text, projection_dim=64, image_text_hidden_size=64)
    model = BlipForConditionalGeneration(config)
    copy_vision_layers(tower, model, pixels)
    return model


def copy_vision_layers(
    tower: CLIPVisionModelWithProjection, model: BlipForConditionalGeneration, pixels: torch.Tensor
) -> None:
    """Copy the tower's first layers into the captioner's vision model, which has no norm before them.

    That norm's centring is linear and goes into the embeddings; its scaling is replaced by the mean scale
    over some preprocessed pictures, `pixels` `[n, 3, 96, 96]`.
    """
    source, target = tower.vision_model, model.vision_model
    with torch.no_grad():
        _copy_embeddings(source, target, pixels)
        for old, new in zip(source.encoder.layers, target.encoder.layers, strict=False):
            attention = old.self_attn
            for part in ("weight", "bias"):
                parts = [getattr(getattr(attention, f"{name}_proj"), part) for name in "qkv"]
                getattr(new.self_attn.qkv, part).copy_(torch.cat(parts))
            new.self_attn.projection.load_state_dict(attention.out_proj.state_dict())
            for name in ("layer_norm1", "layer_norm2", "mlp"):
                getattr(new, name).load_state_dict(getattr(old, name).state_dict())


def _copy_embeddings(source: Any, target: Any, pixels: torch.Tensor) -> None:
    old, norm, new = source.embeddings, source.pre_layrnorm, target.embeddings
    patches, places = old.patch_embedding.weight, old.position_embedding.weight
    spread = old(pixels)[:, 1:].std(-1).mean()
    gain = norm.weight / spread
    new.patch_embedding.weight.copy_((patches - patches.mean(0, keepdim=True)) * gain[:, None, None, None])
    new.patch_embedding.bias.copy_(norm.bias)
    moved = (places - places.mean(1, keepdim=True)) * gain
    moved[0] = 0
    new.position_embedding.copy_(moved[None])
    new.class_embedding.copy_(norm(old.class_embedding + places[0])[None, None])


def caption_groups(scene: Scene) -> list[int]:
    """Return the group that each word of the usual caption is about: 1, 2, or 0 for neither."""
    statement = full(scene)
    lengths = [len(noun_phrase(mention, LANGUAGE, FirstChoice()).split()) for mention in statement.mentions]
    marks = [1] * lengths[0]
    if scene.relation:
        between = RELATION_PHRASES[LANGUAGE][scene.relation][0][0]
        marks += [0] * len(between.split()) + [2] * lengths[1]
    return marks


class CaptionerTrainee:
    """A captioner with a helper head for patches, which computes the losses of a batch."""

    def __init__(self, model: BlipForConditionalGeneration, tokenizer: BertTokenizerFast) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.helper = Heads(model.config.vision_config.hidden_size)

    def targets(self, scenes: Sequence[Scene]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the decoder's inputs, labels and groups, int64 `[n, longest]`."""
        rows = [self.tokenizer.encode(usual_caption(scene), add_special_tokens=False) for scene in scenes]
        width = max(map(len, rows)) + 1
        inputs = torch.full((len(rows), width), self.tokenizer.pad_token_id)
        labels, about = torch.full_like(inputs, IGNORED), torch.zeros_like(inputs)
        for number, (row, scene) in enumerate(zip(rows, scenes, strict=True)):
            inputs[number, : len(row) + 1] = torch.tensor([self.tokenizer.bos_token_id, *row])
            labels[number, : len(row) + 1] = torch.tensor([*row, self.tokenizer.sep_token_id])
            marks = caption_groups(scene)
            about[number, : len(marks)] = torch.tensor(marks)
        return inputs, labels, about

    def losses(
        self, pixels: torch.Tensor, patches: torch.Tensor, scenes: Sequence[Scene]
    ) -> dict[str, torch.Tensor]:
        """Return the mean losses for pictures `[n, 3, 96, 96]` with patch labels `[n, 64, 4]`."""
        inputs, labels, about = self.targets(scenes)
        seen = self.model.vision_model(pixel_values=pixels).last_hidden_state
        written = self.model.text_decoder(
            input_ids=inputs,
            attention_mask=(inputs != self.tokenizer.pad_token_id).long(),
            encoder_hidden_states=seen,
            output_attentions=True,
            return_dict=True,
        )
        return {
            "text": cross_entropy(written.logits.flatten(0, 1).float(), labels.flatten()),
            "patches": patch_loss(self.helper, seen[:, 1:], patches).mean(),
            "attention": _attention_loss(written.cross_attentions[-1], about, patches[..., 3]),
        }


def _attention_loss(attention: torch.Tensor, about: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Penalise guided heads that do not look at the group that the next word is about."""
    right = (about[:, :, None] == slots[:, None, :]) & (about > 0)[:, :, None]
    return attention_loss(attention[:, :GUIDED_HEADS, :, 1:].float(), right)
