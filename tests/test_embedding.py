"""Encoders of every layout that a profile's models come in, with random weights of the right shape."""

import model_folders
import numpy as np
import pytest
from PIL import Image

from models.encoders import load_image_encoder, load_text_encoder, tiles_of
from models.errors import ModelError
from models.profiles import get_profile


@pytest.fixture(scope="module")
def pictures():
    noise = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    return [Image.fromarray(noise), Image.new("RGB", (40, 90), "red")]


@pytest.fixture(scope="module")
def vit_b_32(tmp_path_factory):
    """A pair of the shape of the `clip` profile's: ViT-B/32 and DistilBERT + pooling + Dense 768 to 512."""
    folder = tmp_path_factory.mktemp("clip")
    model_folders.save_sentence_clip(folder / "image")
    model_folders.save_text_tower(folder / "text", dims=512, hidden=768, layers=6)
    return get_profile("clip", model_dir=folder)


def test_the_clip_pair_gives_unit_vectors_of_512_dims(vit_b_32, pictures):
    images = load_image_encoder(vit_b_32).embed_images(pictures)
    texts = load_text_encoder(vit_b_32).embed_texts(["a red boat", "ein rotes Boot"])
    for vectors in (images, texts):
        assert vectors.shape == (2, 512)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_the_clip_pair_agrees_with_sentence_transformers(vit_b_32, pictures):
    from sentence_transformers import SentenceTransformer

    for loaded, source, inputs in (
        (load_image_encoder(vit_b_32).embed_images, vit_b_32.image_model, pictures),
        (load_text_encoder(vit_b_32).embed_texts, vit_b_32.text_model, ["a red boat", "a cat"]),
    ):
        expected = SentenceTransformer(source.name).encode(inputs, normalize_embeddings=True)
        np.testing.assert_allclose(loaded(inputs), expected, atol=1e-5)


def test_siglip_runs_both_towers_and_pads_its_texts(tmp_path, pictures):
    profile = get_profile("siglip2", model_dir=model_folders.save_siglip(tmp_path))
    assert load_image_encoder(profile).embed_images(pictures).shape == (2, profile.dims)
    encoder = load_text_encoder(profile)
    alone, together = encoder.embed_texts(["a boat"]), encoder.embed_texts(["a boat", "a red cat in the sea"])
    np.testing.assert_allclose(alone[0], together[0], atol=1e-6)


def test_one_folder_with_both_towers_of_clip_is_enough(tmp_path, pictures):
    model_folders.save_sentence_clip(tmp_path, dims=24, size=model_folders.TINY, pixels=32)
    profile = get_profile("clip", model_dir=tmp_path)
    assert load_image_encoder(profile).embed_images(pictures).shape == (2, 24)
    assert load_text_encoder(profile).embed_texts(["x" * 10_000]).shape == (1, 24)


def test_a_vector_does_not_depend_on_its_batch(tmp_path, pictures):
    encoder = load_image_encoder(get_profile("clip", model_dir=model_folders.save_pair(tmp_path)))
    batch = encoder.embed_images(pictures * 40)
    assert batch.shape == (80, 16)
    np.testing.assert_allclose(batch[78:], encoder.embed_images(pictures), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50_000, 2), (3, 3)])
def test_pictures_of_odd_shapes_get_a_vector(tmp_path, size):
    encoder = load_image_encoder(get_profile("clip", model_dir=model_folders.save_pair(tmp_path)))
    vectors = encoder.embed_images([Image.new("RGB", size, "blue")])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_wide_picture_is_seen_from_end_to_end_and_an_ordinary_one_as_before(tmp_path, pictures):
    encoder = load_image_encoder(get_profile("clip", model_dir=model_folders.save_pair(tmp_path)))
    assert encoder.preprocess(Image.new("RGB", (250, 100))).ndim == 3
    assert encoder.preprocess(Image.new("RGB", (251, 100))).shape[0] == 4
    for size in ((251, 100), (100, 251), (800, 100), (20_000, 300), (3, 5000)):
        tiles = tiles_of(Image.new("RGB", size))
        assert len(tiles) <= 24
        assert all(tile.width == tile.height for tile in tiles), size
    strip = Image.linear_gradient("L").resize((100, 800)).rotate(90, expand=True).convert("RGB")
    tiles = tiles_of(strip)
    assert (tiles[0].getpixel((0, 50)), tiles[-1].getpixel((99, 50))) == (
        strip.getpixel((0, 50)),
        strip.getpixel((799, 50)),
    )
    alone = encoder.embed_images(pictures)
    mixed = encoder.embed_images([pictures[0], strip, *pictures[1:]])
    np.testing.assert_array_equal(np.delete(mixed, 1, axis=0), alone)
    for place in ((0, 0), (700, 0)):
        marked = strip.copy()
        marked.paste(pictures[0].resize((100, 100)), place)
        assert (encoder.embed_images([marked])[0] != mixed[1]).any(), "an edge counts"


def test_nothing_in_gives_nothing_out(tmp_path):
    profile = get_profile("clip", model_dir=model_folders.save_pair(tmp_path))
    assert load_image_encoder(profile).embed_images([]).shape == (0, 16)
    assert load_text_encoder(profile).embed_texts([]).shape == (0, 16)


def test_a_text_that_looks_like_a_file_or_an_address_is_text(tmp_path):
    profile = get_profile("clip", model_dir=model_folders.save_pair(tmp_path))
    texts = ["photo.jpg", "/etc/hostname", "http://127.0.0.1:9/a.png", ""]
    assert load_text_encoder(profile).embed_texts(texts).shape == (4, 16)


def test_corrupt_weights_are_one_sentence(tmp_path):
    model_folders.save_pair(tmp_path)
    (tmp_path / "image" / "model.safetensors").write_bytes(b"not weights")
    profile = get_profile("clip", model_dir=tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded.*copy or download it again"):
        load_image_encoder(profile)


def test_pixels_are_those_of_the_model_s_own_processor(vit_b_32, pictures):
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(f"{vit_b_32.image_model.name}/0_CLIPModel", use_fast=False)
    encoder = load_image_encoder(vit_b_32)
    for picture in pictures:
        expected = processor(picture, return_tensors="np")["pixel_values"][0]
        found = encoder.preprocess(picture)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
