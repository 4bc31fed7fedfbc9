"""Ways to run the image tower: the same vectors, made faster, and never mixed when they are not the same."""

import subprocess
import sys
from pathlib import Path

import model_folders
import numpy as np
import pytest
from eight_bits import INT8, by_definition, in_eight_bits
from PIL import Image
from waiting import PATIENCE_S

from demo.world.draw import draw
from demo.world.scene import sample
from models.encoders import EXACT, Execution, load_image_encoder
from models.errors import ModelError
from models.fast.choose import (
    FASTEST_FIRST,
    Agreement,
    Processor,
    Requested,
    agreement,
    choose_backend,
    load_fast_image_encoder,
    probe,
    run_in,
)
from models.fast.onnx import made_once
from models.profiles import get_profile

ONNX, BF16 = Execution("onnx", "fp32"), Execution("torch", "bf16")
EVERYTHING = Processor(bf16=True, int8=True)
AUTO = Requested()
ROOT = Path(__file__).parent.parent
LAST_DIGITS = 1e-6
"""how far vectors of unit length may differ that are computed twice: sums may be added up in another order"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pictures():
    return [draw(scene, 128) for scene in sample("test", 40)]


@pytest.fixture(scope="module")
def pocket():
    return load_image_encoder(get_profile("pocket"))


@pytest.fixture(scope="module")
def tiny(tiny_pair):
    return load_image_encoder(get_profile("clip", model_dir=tiny_pair))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = model_folders.save_siglip(tmp_path_factory.mktemp("siglip"))
    return load_image_encoder(get_profile("siglip2", model_dir=folder))


@pytest.mark.parametrize("name", ["tiny", "siglip", "pocket"])
def test_onnx_gives_the_vectors_of_torch(name, request, pictures, cache):
    exact = request.getfixturevalue(name)
    vectors = run_in(ONNX, exact, cache=cache).embed_images(pictures)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, exact.embed_images(pictures), atol=2e-6)


@pytest.mark.parametrize("way", [BF16, INT8], ids=str)
def test_low_precision_agrees_with_fp32_on_trained_weights(way, pocket, pictures, cache):
    running = in_eight_bits(pocket, cache=cache) if way == INT8 else run_in(way, pocket, cache=cache)
    found = agreement(pocket.embed_images(pictures), running.embed_images(pictures))
    assert found.passed, str(found)


def test_eight_bits_agree_with_fp32_where_nothing_overflows(tiny, pictures, cache):
    run_in(INT8, tiny, cache=cache)
    found = agreement(tiny.embed_images(pictures), by_definition(tiny, cache=cache).embed_images(pictures))
    assert found.passed, str(found)


@pytest.mark.parametrize("way", [ONNX, INT8], ids=str)
def test_a_vector_does_not_depend_on_what_else_is_in_the_batch(way, pocket, pictures, cache):
    encoder = run_in(way, pocket, cache=cache)
    together = encoder.embed_images(pictures[:9])
    alone = np.concatenate([encoder.embed_images([picture]) for picture in pictures[:9]])
    np.testing.assert_allclose(together, alone, atol=1e-6 if way == ONNX else 2e-3)


def test_making_another_way_leaves_the_exact_encoder_as_it_was(tiny_pair, pictures, tmp_path):
    exact = load_image_encoder(get_profile("clip", model_dir=tiny_pair))
    weights = {name: value.clone() for name, value in exact.tower.model.state_dict().items()}
    before = exact.embed_images(pictures)
    for way in FASTEST_FIRST:
        assert run_in(way, exact, cache=tmp_path).execution == way
    after = exact.tower.model.state_dict()
    assert all(bool((after[name] == value).all()) for name, value in weights.items())
    np.testing.assert_allclose(exact.embed_images(pictures), before, rtol=0, atol=LAST_DIGITS)


def test_large_channels_cost_eight_bits_little(tiny_pair, pictures, tmp_path):
    import torch

    exact = load_image_encoder(get_profile("clip", model_dir=tiny_pair))
    with torch.no_grad():
        for layer in exact.tower.model.vision_model.encoder.layers:
            layer.layer_norm2.weight[:2] *= 60
            layer.layer_norm2.bias[:2] *= 60
            layer.mlp.fc1.weight[:, :2] /= 60
    vectors = in_eight_bits(exact, cache=tmp_path).embed_images(pictures)
    assert agreement(exact.embed_images(pictures), vectors).cosine >= 0.999


def test_a_model_is_exported_once(tiny, cache, pictures):
    first = run_in(ONNX, tiny, cache=cache).embed_images(pictures)
    (path,) = cache.glob(f"onnx/{tiny.revision.removeprefix('sha256:')}-*-fp32-*.onnx")
    made = path.stat().st_mtime_ns
    again = run_in(ONNX, tiny, cache=cache).embed_images(pictures)
    np.testing.assert_allclose(again, first, rtol=0, atol=LAST_DIGITS)
    assert path.stat().st_mtime_ns == made


@pytest.mark.parametrize("damage", ["cut", "flipped", "note lost"])
def test_a_damaged_export_is_made_again(damage, tiny, tmp_path, pictures):
    first = run_in(ONNX, tiny, cache=tmp_path).embed_images(pictures)
    (path,) = tmp_path.glob("onnx/*.onnx")
    data = path.read_bytes()
    if damage == "note lost":
        path.with_name(f"{path.name}.sha256").unlink()
    else:
        middle = len(data) // 2
        path.write_bytes(
            data[:middle] + (b"" if damage == "cut" else bytes([data[middle] ^ 1]) + data[middle + 1 :])
        )
    again = run_in(ONNX, tiny, cache=tmp_path).embed_images(pictures)
    np.testing.assert_allclose(again, first, rtol=0, atol=LAST_DIGITS)
    assert path.read_bytes() == data
    assert not list(tmp_path.glob("onnx/.*"))


def test_an_export_that_fails_leaves_nothing_behind(tmp_path):
    def make(path):
        path.write_bytes(b"half")
        raise ModelError("No.")

    with pytest.raises(ModelError, match="No."):
        made_once(tmp_path / "model.onnx", make)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_two_processes_that_start_at_once_make_one_file(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from models.fast.onnx import made_once\n"
        "folder = Path(sys.argv[1])\n"
        "def make(path):\n"
        "    (folder / 'made').open('a').write('x')\n"
        "    while len(list(folder.glob('begun-*'))) < 2: time.sleep(0.01)\n"
        "    path.write_bytes(b'model' * 1000)\n"
        "(folder / f'begun-{sys.argv[2]}').touch()\n"
        "print(len(made_once(folder / 'cache' / 'model.onnx', make).read_bytes()))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen([*command, name], cwd=ROOT, stdout=subprocess.PIPE, text=True) for name in "ab"]
    assert [each.communicate(timeout=PATIENCE_S)[0] for each in both] == ["5000\n", "5000\n"]
    assert (tmp_path / "made").read_text() == "x"


def test_a_cache_that_cannot_be_written_is_one_sentence(tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match="cannot be kept in .*use --backend torch"):
        run_in(ONNX, tiny, cache=tmp_path / "file")


def test_a_tower_that_makes_fewer_operations_makes_the_same_vectors(tiny, siglip, pictures):
    import torch

    from models.encoders import TorchTower
    from models.fast.onnx import LeanTower

    for exact in (tiny, siglip):
        lean = exact.running(TorchTower(LeanTower(exact.tower.model).eval()), EXACT)
        np.testing.assert_allclose(lean.embed_images(pictures), exact.embed_images(pictures), atol=2e-6)
    assert torch.is_grad_enabled()


def test_agreement_counts_every_picture_and_every_neighbour():
    exact = np.eye(40, dtype=np.float32)
    same = agreement(exact, exact)
    assert (same.cosine, same.overlap, same.pictures, same.passed) == (1.0, 1.0, 40, True)
    turned = exact.copy()
    turned[3] = 0.6 * exact[3] + 0.8 * exact[4]
    one_ruined = agreement(exact, turned)
    assert one_ruined.cosine == pytest.approx(0.6)
    assert not one_ruined.passed


def test_other_neighbours_fail_even_where_every_cosine_is_good():
    rng = np.random.default_rng(5)
    near = np.float32([1, *[0] * 15]) + 0.01 * rng.normal(size=(64, 16)).astype(np.float32)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    moved = near + 0.01 * rng.normal(size=near.shape).astype(np.float32)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    found = agreement(near, moved)
    assert found.cosine >= 0.998
    assert found.overlap < 0.9
    assert not found.passed


def test_few_pictures_are_judged_by_cosine_and_none_by_nothing():
    exact = np.eye(5, dtype=np.float32)
    assert agreement(exact, exact) == Agreement(5, 1.0, None)
    assert agreement(exact, exact).passed
    assert not agreement(exact[:0], exact[:0]).passed
    assert not agreement(exact, exact * np.nan).passed


class Spoiled:
    """A tower whose vectors are the exact ones plus noise."""

    def __init__(self, exact, noise):
        self.exact, self.noise = exact, noise

    def __call__(self, pixels):
        return self.exact.tower(pixels) + np.random.default_rng(1).normal(size=(len(pixels), 16)) * self.noise


class Stopped:
    """A clock on which only exact vectors take time: a second for each batch."""

    now = 0.0

    def __call__(self):
        return self.now

    def patient(self, encoder):
        """Return the encoder, whose batches this clock counts."""

        def tower(pixels):
            self.now += 1
            return encoder.tower(pixels)

        return encoder.running(tower, EXACT)


def choose(
    exact, pictures, requested=AUTO, *, noise=None, noted=None, processor=EVERYTHING, count=40, **options
):
    noise, clock = noise or {}, Stopped()
    options = {"clock": clock, **options}
    return choose_backend(
        clock.patient(exact),
        requested,
        build=lambda way: exact.running(Spoiled(exact, noise.get(way.precision, 0.0)), way),
        sample=lambda: pictures[:count],
        processor=processor,
        noted=noted or {},
        **options,
    )


def test_auto_takes_the_fastest_that_agrees(tiny, pictures):
    chosen = choose(tiny, pictures)
    assert chosen.encoder.execution == INT8
    assert chosen.agreement.passed
    assert chosen.note() == {"int8": {"backend": "onnx", **chosen.agreement.as_note()}}
    assert chosen.sentence.startswith("Pictures are embedded in onnx int8: smallest cosine 1.0")


def test_auto_passes_over_what_does_not_agree_and_takes_the_next(tiny, pictures):
    assert choose(tiny, pictures, noise={"int8": 9.0}).encoder.execution == BF16


def test_auto_stays_exact_and_says_why_when_nothing_agrees(tiny, pictures):
    noise = {"int8": 9.0, "bf16": 9.0, "fp32": 9.0}
    chosen = choose(tiny, pictures, noise=noise)
    assert chosen.encoder.execution == EXACT
    for way in (INT8, BF16, ONNX):
        assert f"{way} does not agree with it (smallest cosine" in chosen.sentence
    assert chosen.note() == {"fp32": {"backend": "torch", "why": chosen.why}}


def test_auto_stays_exact_where_nothing_else_is_faster(tiny, pictures):
    chosen = choose(tiny, pictures, clock=lambda: 0.0)
    assert chosen.encoder.execution == EXACT
    assert "onnx int8 is not faster on this machine" in chosen.sentence


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (Processor(), ONNX),
        (Processor(bf16=True), BF16),
        (Processor(int8=True), INT8),
        (Processor(cuda=True, bf16=True, int8=True), BF16),
    ],
)
def test_auto_tries_what_the_processor_is_made_for(processor, expected, tiny, pictures):
    assert choose(tiny, pictures, processor=processor).encoder.execution == expected


def test_auto_stays_exact_for_few_pictures_and_for_small_towers(tiny, pictures):
    for chosen in (choose(tiny, pictures, count=31), choose(tiny, pictures, is_small=True)):
        assert chosen.encoder.execution == EXACT
        assert chosen.sentence == ""


GOOD = {"backend": "onnx", "cosine": 0.9999, "overlap": 0.99, "pictures": 64}


def test_auto_follows_what_was_settled_for_the_index_without_comparing_again(tiny, pictures):
    for noted, expected in (
        ({"int8": GOOD}, INT8),
        ({"fp32": {"backend": "torch"}, "bf16": GOOD}, BF16),
        ({"fp32": {"backend": "torch", "why": "nothing agreed"}}, ONNX),
    ):
        chosen = choose(tiny, pictures, noted=noted, count=0)
        assert chosen.encoder.execution == expected
        assert not chosen.compared


def test_auto_compares_once_there_is_enough_to_compare(tiny, pictures):
    unsettled = {"fp32": {"backend": "torch"}}
    assert choose(tiny, pictures, noted=unsettled, count=9).encoder.execution == EXACT
    assert choose(tiny, pictures, noted=unsettled).encoder.execution == INT8
    small = choose(tiny, pictures, noted=unsettled, is_small=True)
    assert small.encoder.execution == EXACT


def test_eight_bits_are_not_followed_on_a_processor_that_is_not_made_for_them(tiny, pictures):
    old = {"noted": {"int8": GOOD}, "processor": Processor(bf16=True)}
    assert choose(tiny, pictures, count=0, **old).encoder.execution.precision == "fp32"
    assert choose(tiny, pictures, Requested(precision="int8"), **old).compared
    with pytest.raises(ModelError, match="onnx int8 does not agree"):
        choose(tiny, pictures, Requested(precision="int8"), noise={"int8": 9.0}, **old)


def test_another_precision_joins_an_index_only_when_it_agrees(tiny, pictures):
    joined = choose(tiny, pictures, Requested(precision="int8"), noted={"fp32": {}})
    assert joined.encoder.execution == INT8
    with pytest.raises(ModelError, match="vectors in fp32, and onnx int8 does not agree.*--precision fp32"):
        choose(tiny, pictures, Requested(precision="int8"), noted={"fp32": {}}, noise={"int8": 9.0})


def test_nothing_joins_an_index_whose_vectors_do_not_agree_with_fp32(tiny, pictures):
    bad = {"int8": {"backend": "onnx", "cosine": 0.9, "overlap": 0.5, "pictures": 64}}
    for requested in (Requested(precision="fp32"), Requested(precision="bf16"), Requested(backend="torch")):
        with pytest.raises(ModelError, match="vectors in int8, which do not agree.*use --precision int8"):
            choose(tiny, pictures, requested, noted=bad)
    assert choose(tiny, pictures, noted=bad).encoder.execution == INT8


def test_a_precision_that_was_asked_for_is_used_with_a_warning_where_it_does_not_agree(tiny, pictures):
    chosen = choose(tiny, pictures, Requested(precision="int8"), noise={"int8": 9.0})
    assert chosen.encoder.execution == INT8
    assert chosen.sentence.startswith("Warning: onnx int8 does not agree with fp32: smallest cosine")


def test_torch_in_int8_is_refused_at_once():
    with pytest.raises(ModelError, match="torch does not run in int8.*--backend onnx"):
        Requested("torch", "int8")


def test_the_processor_is_read_from_what_the_kernel_says(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("flags : fpu avx512f avx512_vnni\n")
    assert (probe(cpuinfo=info).int8, probe(cpuinfo=info).bf16) == (True, False)
    assert probe(cpuinfo=tmp_path / "absent").int8 is False


def test_the_real_machine_gets_vectors_that_agree(tiny_pair, tmp_path, pictures):
    profile = get_profile("clip", model_dir=tiny_pair)
    exact = load_image_encoder(profile).embed_images(pictures)
    for requested in (Requested(), Requested(backend="onnx"), Requested(precision="fp32", backend="onnx")):
        chosen = load_fast_image_encoder(
            profile, requested=requested, noted={}, cache=tmp_path, sample=lambda: pictures
        )
        assert agreement(exact, chosen.encoder.embed_images(pictures)).cosine >= 0.999
        assert requested.backend in ("auto", chosen.encoder.execution.backend)


def test_a_picture_without_end_is_no_obstacle(tiny, cache):
    vectors = run_in(ONNX, tiny, cache=cache).embed_images([Image.new("RGB", (5000, 2), "red")])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
