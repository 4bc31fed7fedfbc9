"""Model folders with random weights, in the layouts that the profiles' models have."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = ["a", "the", "red", "blue", "boat", "house", "cat", "dog", "sea", "night", "rain", "and", "of"]
VIT_B_32 = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def vocabulary() -> list[str]:
    """Return a WordPiece vocabulary that covers every ASCII word."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [
        *specials,
        *WORDS,
        *(c for c in letters if c not in WORDS),
        *(f"##{c}" for c in letters),
        *".,!?-",
    ]


def save_vision_tower(folder: Path, *, dims: int = 16, size: dict | None = None, pixels: int = 32) -> Path:
    """Save a `CLIPVisionModelWithProjection` with its preprocessor, as `pocket` has it."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(7)
    patch = 32 if pixels == 224 else 8
    config = CLIPVisionConfig(**(size or TINY), image_size=pixels, patch_size=patch, projection_dim=dims)
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    save_preprocessor(folder, pixels)
    return folder


def save_preprocessor(folder: Path, pixels: int) -> None:
    """Save CLIP's preprocessing for square pictures of `pixels` on a side."""
    from transformers import CLIPImageProcessor

    CLIPImageProcessor(
        size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels}
    ).save_pretrained(folder)


def save_sentence_clip(folder: Path, *, dims: int = 512, size: dict | None = None, pixels: int = 224) -> Path:
    """Save a CLIP model in the layout of `sentence-transformers/clip-ViT-B-32` (`0_CLIPModel`)."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(7)
    nested = folder / "0_CLIPModel"
    patch = 32 if pixels == 224 else 8
    vision = CLIPVisionConfig(**(size or VIT_B_32), image_size=pixels, patch_size=patch, projection_dim=dims)
    text = CLIPTextConfig(**TINY, vocab_size=200, projection_dim=dims)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=dims)
    CLIPModel(config).save_pretrained(nested)
    save_preprocessor(nested, pixels)
    save_clip_tokenizer(nested)
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (folder / "modules.json").write_text(json.dumps([module]))
    return folder


def save_clip(folder: Path, *, dims: int = 16, safetensors: bool = True, seed: int = 7) -> Path:
    """Save a tiny CLIP model with both towers, as `openai/clip-vit-base-patch32` has them."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(seed)
    vision = CLIPVisionConfig(**TINY, image_size=32, patch_size=8, projection_dim=dims)
    # The text's vector is that of its last token, which the model knows by this id.
    text = CLIPTextConfig(**TINY, vocab_size=200, projection_dim=dims, bos_token_id=0, eos_token_id=1)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=dims)
    CLIPModel(config).save_pretrained(folder, safe_serialization=safetensors)
    save_preprocessor(folder, 32)
    save_clip_tokenizer(folder)
    return folder


def save_clip_tokenizer(folder: Path) -> None:
    """Save a byte-pair tokenizer of CLIP's kind that spells every word."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


def save_text_tower(folder: Path, *, dims: int = 16, hidden: int = 32, layers: int = 2) -> Path:
    """Save DistilBERT + mean pooling + Dense in the layout of `clip-ViT-B-32-multilingual-v1`."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Pooling, Transformer
    from transformers import DistilBertConfig, DistilBertModel, DistilBertTokenizerFast

    torch.manual_seed(7)
    bert = folder / "bert"
    config = DistilBertConfig(
        vocab_size=len(vocabulary()), dim=hidden, hidden_dim=4 * hidden, n_layers=layers,
        n_heads=max(2, hidden // 64), max_position_embeddings=64,
    )  # fmt: skip
    DistilBertModel(config).save_pretrained(bert)
    (bert / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    DistilBertTokenizerFast(str(bert / "vocab.txt"), model_max_length=64).save_pretrained(bert)
    transformer = Transformer(str(bert), max_seq_length=64)
    dense = Dense(hidden, dims, bias=False, activation_function=torch.nn.Identity())
    SentenceTransformer(modules=[transformer, Pooling(hidden), dense], device="cpu").save(str(folder))
    return folder


def save_siglip(folder: Path, *, dims: int = 32) -> Path:
    """Save a small SigLIP model with both towers, as `google/siglip2-base-patch16-224` has them."""
    import torch
    from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessor, SiglipModel

    torch.manual_seed(7)
    size = {**TINY, "hidden_size": dims}
    config = SiglipConfig(
        text_config={**size, "vocab_size": len(vocabulary()), "max_position_embeddings": 64},
        vision_config={**size, "image_size": 32, "patch_size": 8},
    )
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_input_names=["input_ids"]
    ).save_pretrained(folder)
    return folder


def save_siglip2(folder: Path, *, dims: int = 32, pixels: int = 32) -> Path:
    """Save a small SigLIP 2 as `google/siglip2-large-patch16-256` has it, with Gemma's tokenizer."""
    import torch
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import GemmaTokenizerFast, SiglipConfig, SiglipImageProcessor, SiglipModel

    torch.manual_seed(7)
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ▁"
    words = {token: i for i, token in enumerate([*specials, *letters])}
    tokenizer = Tokenizer(models.BPE(words, [], unk_token="<unk>"))
    tokenizer.add_special_tokens([AddedToken(special, special=True) for special in specials])
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    text = {**TINY, "hidden_size": dims, "vocab_size": len(words), "max_position_embeddings": 64}
    vision = {**TINY, "hidden_size": dims, "image_size": pixels, "patch_size": 8}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    SiglipImageProcessor(size={"height": pixels, "width": pixels}).save_pretrained(folder)
    GemmaTokenizerFast(
        tokenizer_object=tokenizer, add_bos_token=False, add_eos_token=True, model_max_length=64,
        padding_side="right", model_input_names=["input_ids"],
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_pair(folder: Path, *, dims: int = 16) -> Path:
    """Save a tiny pair as `--model-dir` takes it: `image/` and `text/`."""
    save_vision_tower(folder / "image", dims=dims)
    save_text_tower(folder / "text", dims=dims)
    return folder


def save_sentence_model(folder: Path, *, dims: int = 384) -> Path:
    """Save a small BERT with mean pooling, as `sentence-transformers/paraphrase-MiniLM-L6-v2` has them."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(7)
    bert = folder / "bert"
    config = BertConfig(
        vocab_size=len(vocabulary()), hidden_size=dims, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(bert)
    (bert / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    BertTokenizerFast(str(bert / "vocab.txt"), model_max_length=64).save_pretrained(bert)
    modules = [Transformer(str(bert), max_seq_length=64), Pooling(dims)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


def save_profile(root: Path, name: str = "clip") -> dict[str, str]:
    """Save small random models in the layout of a profile's repositories, and return their commits.

    Beside the safetensors lie older pickles and exports for other libraries, as on the hub.
    """
    from test_captioning import save_blip
    from voice_folders import save_whisper

    from models.profiles import PROFILES

    models = PROFILES[name].models()
    save_sentence_clip(root / models["image"].name, dims=512, size=TINY, pixels=32)
    save_text_tower(root / models["text"].name, dims=512)
    save_sentence_model(root / models["caption_text"].name)
    save_blip(root / models["caption"].name, weights="pytorch_model.bin")
    save_whisper(root / models["voice"].name)
    for weights in [*root.rglob("model.safetensors")]:
        (weights.parent / "pytorch_model.bin").write_bytes(b"a pickle " * 1000)
    for source in models.values():
        for decoy in ("onnx/model.onnx", "onnx/config.json", "openvino/openvino_model.bin", "tf_model.h5"):
            path = root / source.name / decoy
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"{}" * 1000)
        (root / source.name / "README.md").write_text("A card.")
    return {source.name: str(source.revision) for source in models.values()}


def save_florence(folder: Path) -> Path:
    """Save a tiny Florence-2 as `florence-community/Florence-2-base` has it."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        BartTokenizerFast,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    torch.manual_seed(7)
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = BartTokenizerFast(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=1024,
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    text = {
        "model_type": "bart", "vocab_size": len(tokenizer), "d_model": 32, "max_position_embeddings": 128,
        "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
        **ids,
    }  # fmt: skip
    vision = {
        "embed_dim": [8, 8, 16, 16], "num_heads": [1, 1, 2, 2], "num_groups": [1, 1, 2, 2],
        "depths": [1, 1, 1, 1], "window_size": 4, "projection_dim": 32,
    }  # fmt: skip
    config = Florence2Config(
        text_config=text, vision_config=vision, image_token_id=tokenizer.image_token_id, **ids
    )
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    square = {"height": 64, "width": 64}
    images = CLIPImageProcessor(size=square, do_center_crop=False, crop_size=square, image_seq_length=5)
    Florence2Processor(images, tokenizer).save_pretrained(folder)
    return folder
