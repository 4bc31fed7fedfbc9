"""Captions: true sentences about the drawn world, and one picture's failure stays its own."""

import json
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from model_folders import save_florence
from PIL import Image

from demo.world.draw import draw
from demo.world.scene import sample
from models.captioning import JOINING, Caption, bf16_gains, load_captioner, without_loops
from models.errors import ModelError
from models.hub import ModelSource
from models.profiles import get_profile
from training.pocket.sentences.facts import compare, read_caption, score_captions, usual_caption
from training.pocket.sentences.grammar import caption
from training.pocket.sentences.statements import Mention, Statement, full


@pytest.fixture(scope="module")
def captioner():
    return load_captioner(get_profile("pocket").caption_model)


@pytest.fixture(scope="module")
def scenes():
    return sample("test", 60)


def save_blip(folder, *, weights="model.safetensors"):
    """Save a small random BLIP as the hub has the large one: with its weights in `pytorch_model.bin`."""
    import torch
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    torch.manual_seed(7)
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "boat", "cat", "on", "the", "sea"]
    (folder / "vocab.txt").write_text("\n".join(words))
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BlipConfig(
        vision_config={**size, "image_size": 32, "patch_size": 8},
        text_config={
            **size, "vocab_size": len(words), "encoder_hidden_size": 32, "max_position_embeddings": 64,
            "pad_token_id": 0, "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3,
        },
    )  # fmt: skip
    model = BlipForConditionalGeneration(config)
    model.save_pretrained(folder, safe_serialization=weights == "model.safetensors")
    tokenizer = BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), bos_token="[DEC]")
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    assert (folder / weights).is_file()
    return ModelSource(str(folder))


def test_what_a_caption_claims_is_read_back_from_every_wording():
    rng = Random(3)
    for scene in sample("test", 200):
        expected = replace(full(scene), complete=False)
        assert read_caption(usual_caption(scene)) == expected
        text = caption(scene, "en", rng)
        assert read_caption(text) == expected, text


def test_a_turned_relation_is_the_same_fact():
    left = read_caption("a red boat to the left of two black cats at sea at night")
    right = read_caption("Two black cats on the right of a red boat, under the stars on the sea.")
    assert left == right
    assert left.mentions == (Mention("boat", "red", 1), Mention("cat", "black", 2))


def test_nonsense_claims_nothing():
    assert read_caption("") == read_caption("of of with the") == Statement()


def test_facts_are_scored_one_by_one():
    scene = next(one for one in sample("test", 200) if one.relation == "left" and one.groups[0].count == 2)
    right = usual_caption(scene)
    wrong = right.replace("two ", "three ", 1)
    assert all(all(values) for values in compare(read_caption(right), scene).values())
    assert compare(read_caption(wrong), scene)["counts"][0] is False
    scores = score_captions([right, wrong, ""], [scene] * 3)
    assert scores.place == scores.weather == scores.kinds == pytest.approx(2 / 3)
    assert scores.all == pytest.approx(1 / 3)


def test_captions_of_unseen_pictures_are_true(captioner, scenes):
    written = captioner.caption_images([draw(scene, 224) for scene in scenes])
    assert [one.error for one in written] == [None] * len(scenes)
    scores = score_captions([one.text for one in written], scenes)
    assert min(scores.place, scores.weather) >= 0.95
    assert min(scores.kinds, scores.colours) >= 0.9
    assert scores.counts >= 0.75
    assert scores.all >= 0.6


def test_a_caption_does_not_depend_on_the_batch_or_on_chance(captioner, scenes):
    images = [draw(scene, 160) for scene in scenes[:9]]
    together = captioner.caption_images(images, batch_size=4)
    assert together == captioner.caption_images(images, batch_size=4)
    alone = [captioner.caption_images([image])[0] for image in images]
    assert sum(a == b for a, b in zip(together, alone, strict=True)) >= 8


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (2000, 3), (3, 3)])
def test_pictures_of_any_shape_get_a_caption_of_bounded_length(captioner, size):
    written = captioner.caption_images([Image.new("RGB", size, "red")])
    assert written[0].text or written[0].error
    assert len((written[0].text or "").split()) <= 40


def test_no_picture_gives_no_caption(captioner):
    assert captioner.caption_images([]) == []


def test_a_picture_that_fails_leaves_the_others_their_captions(captioner, scenes):
    good = [draw(scene, 128) for scene in scenes[:3]]
    buffer = BytesIO()
    good[0].save(buffer, "JPEG")
    broken_off = Image.open(BytesIO(buffer.getvalue()[:900]))
    written = captioner.caption_images([good[0], broken_off, good[1], object(), good[2]])
    expected = captioner.caption_images(good)
    assert [written[0], written[2], written[4]] == expected
    for failed in (written[1], written[3]):
        assert failed.text is None
        assert failed.error.startswith("the captioner failed on it (")
        assert "\n" not in failed.error


def test_a_batch_that_fails_is_tried_picture_by_picture(scenes, tmp_path):
    captioner = load_captioner(save_blip(tmp_path / "blip"))
    images = [draw(scene, 96) for scene in scenes[:4]]
    expected = captioner.caption_images(images)
    whole = captioner._generated

    def only_alone(pixels):
        if len(pixels) > 1:
            raise MemoryError("too many at once")
        return whole(pixels)

    captioner._generated = only_alone
    assert captioner.caption_images(images) == expected

    def never(_pixels):
        raise MemoryError("no memory at all")

    captioner._generated = never
    failed = captioner.caption_images(images)
    reason = "the captioner failed on it (no memory at all); free some memory, or copy or download it again"
    assert failed == [Caption(None, reason)] * 4


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_in_the_hubs_layout_is_loaded(tmp_path, weights):
    captioner = load_captioner(save_blip(tmp_path / "blip", weights=weights))
    assert captioner.revision.startswith("sha256:")
    assert captioner.dtype == "float32"
    written = captioner.caption_images([Image.new("RGB", (64, 48), "blue")] * 3)
    assert len({one.text for one in written}) == 1
    assert len((written[0].text or "").split()) <= 40


def test_florence_in_the_layout_of_the_hub_is_asked_as_its_own_processor_asks(tmp_path):
    import torch
    from transformers import AutoProcessor

    folder = save_florence(tmp_path / "florence")
    captioner = load_captioner(ModelSource(str(folder)))
    processor = AutoProcessor.from_pretrained(folder, use_fast=False)
    images = [Image.new("RGB", (60, 40), colour) for colour in ("red", "white")]
    asked = processor(images=images, text=["<CAPTION>"] * 2, return_tensors="pt")
    assert asked["input_ids"].tolist() == [list(captioner.prompt)] * 2
    ready = torch.stack([torch.from_numpy(captioner._prepared(image)) for image in images])
    assert torch.equal(ready, asked["pixel_values"])
    tokens = captioner.model.generate(**asked, max_new_tokens=40, do_sample=False, num_beams=1)
    texts = [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    written = captioner.caption_images(images)
    assert [one.text for one in written] == [without_loops(text) or None for text in texts]
    assert captioner.revision.startswith("sha256:")


@pytest.mark.parametrize("lost", ["preprocessor_config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("save", [save_blip, save_florence], ids=["blip", "florence"])
def test_a_captioner_that_lacks_a_file_is_one_sentence(tmp_path, save, lost):
    save(tmp_path / "model")
    for name in (lost, *(("vocab.txt", "vocab.json", "merges.txt") if lost == "tokenizer.json" else ())):
        (tmp_path / "model" / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="^The captioner in .* cannot be loaded [^\n]*\\.$"):
        load_captioner(ModelSource(str(tmp_path / "model")))


def test_a_captioner_that_fails_on_its_first_picture_is_refused_when_it_is_loaded(tmp_path):
    source = save_blip(tmp_path / "blip")
    settings = json.loads((tmp_path / "blip" / "preprocessor_config.json").read_text())
    settings["image_mean"] = [0.5, 0.5]  # pictures have three colours
    (tmp_path / "blip" / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="The captioner in .* cannot be loaded .*failed on it"):
        load_captioner(source)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            "a green butterfly above green butterfly to green butterfly on green butterfly",
            "a green butterfly",
        ),
        ("three horses in the rain in the rain in the rain", "three horses in the rain"),
        ("a dog on a beach a dog on a beach", "a dog on a beach"),
        ("a cat the the the the", "a cat the"),
        ("a man in a blue shirt and a woman in a blue dress and a child in a blue hat", None),
        ("a very very large house on the left of a large tree", None),
        ("a red boat to the left of a red house and a red car", None),
        ("", None),
    ],
)
def test_a_caption_ends_where_it_begins_to_repeat_itself(text, kept):
    assert without_loops(text) == (text if kept is None else kept)


def test_captions_of_the_drawn_world_are_left_as_they_are():
    rng = Random(5)
    for scene in sample("test", 300):
        for said in (usual_caption(scene), caption(scene, "en", rng)):
            assert without_loops(said) == said


@pytest.mark.parametrize("side", [40, 96, 500])
def test_captions_of_flat_pictures_never_loop(captioner, side):
    colours = ("red", "green", "blue", "white", "black", "grey", "yellow", "#345", "#fa7")
    for one in captioner.caption_images([Image.new("RGB", (side, side), colour) for colour in colours]):
        words = (one.text or "").split()
        pairs = list(pairwise(words))
        assert all(pairs.count(pair) < 3 for pair in pairs if not JOINING & set(pair)), one.text
        assert len(one.text or "") < 150


def test_a_model_that_cannot_caption_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelError, match="a 'clip' model, which cannot write captions; it needs a BLIP"):
        load_captioner(ModelSource(str(tmp_path)))


def test_damaged_weights_are_one_sentence(tmp_path):
    source = save_blip(tmp_path / "blip")
    (tmp_path / "blip" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="cannot be loaded .*; copy or download it again"):
        load_captioner(source)


def test_bf16_is_tried_on_the_processor():
    assert bf16_gains(at_least=0)
    assert not bf16_gains(at_least=1e9)


def test_the_pocket_captioner_is_small_enough_for_the_repository():
    folder = Path(get_profile("pocket").caption_model.name)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5.5e6


def test_profiles_name_a_pinned_captioner():
    source = get_profile("clip").caption_model
    assert source.name == "Salesforce/blip-image-captioning-base"
    assert len(source.revision) == 40
