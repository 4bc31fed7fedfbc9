"""Models that load, or nearly, and then fail: one sentence names the model and the way out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import model_folders
import numpy as np
import onnx
import pytest
import recordings
from onnx import TensorProto, helper
from PIL import Image
from waiting import PATIENCE_S

from models.captioning import load_captioner
from models.encoders import EXACT, Execution, TorchTower, load_image_encoder, load_text_encoder
from models.errors import ModelError
from models.fast.choose import Processor, Requested, choose_backend, run_in
from models.fast.standalone import OnnxTower
from models.hub import ModelSource
from models.profiles import POCKET_WEIGHTS, get_profile
from models.voice import load_transcriber

ONNX = Execution("onnx", "fp32")
NOT_NUMBERS = (
    "failed while it ran (it gives values that are not numbers); free some memory, or copy or download"
)
ROOT = Path(__file__).parent.parent


def spoil(path, *, kind):
    """Overwrite the tensors of a safetensors file whose names contain `kind` with NaN."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    named = [name for name in tensors if kind in name]
    assert named
    save_file(tensors | {name: np.full_like(tensors[name], np.nan) for name in named}, path, {"format": "pt"})


def broken_session(folder, *, not_a_number=False):
    """Return a tower whose ONNX file is valid, and whose session fails on pictures or gives no numbers."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 32, 32])
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", 16])
    value, shape = np.float32([np.nan if not_a_number else 1.0]), np.int64([-1, 16 if not_a_number else 7])
    constants = [
        helper.make_tensor("shape", TensorProto.INT64, [2], shape),
        helper.make_tensor("value", TensorProto.FLOAT, [1], value),
    ]
    nodes = [
        helper.make_node("Mul", ["pixels", "value"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "shape"], ["vectors"]),
    ]
    graph = helper.make_graph(nodes, "tower", [pixels], [vectors], constants)
    path = folder / f"{not_a_number}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return OnnxTower(path)


@pytest.fixture(scope="module")
def exact(tiny_pair):
    return load_image_encoder(get_profile("clip", model_dir=tiny_pair))


@pytest.mark.parametrize(
    ("load", "weights", "message"),
    [
        (load_image_encoder, "image/model.safetensors", f"The image model in torch fp32 {NOT_NUMBERS}"),
        (load_text_encoder, "text/2_Dense/model.safetensors", f"The text model {NOT_NUMBERS}"),
    ],
)
def test_weights_that_are_no_numbers_are_refused_when_the_pair_is_loaded(tmp_path, load, weights, message):
    model_folders.save_pair(tmp_path)
    spoil(tmp_path / weights, kind="")
    with pytest.raises(ModelError) as refused:
        load(get_profile("clip", model_dir=tmp_path))
    assert str(refused.value).startswith(message)


def test_a_text_tower_in_one_model_with_the_image_tower_is_checked_too(tmp_path):
    spoil(model_folders.save_clip(tmp_path) / "model.safetensors", kind="text_projection")
    profile = get_profile("clip-b32", model_dir=tmp_path)
    assert load_image_encoder(profile).dims == 16
    with pytest.raises(ModelError, match="The text model failed while it ran .*copy or download it again"):
        load_text_encoder(profile)


def test_a_captioner_whose_weights_are_no_numbers_is_refused_when_it_is_loaded(tmp_path):
    folder = tmp_path / "caption"
    shutil.copytree(get_profile("pocket").caption_model.name, folder)
    spoil(folder / "model.safetensors", kind="text_decoder.bert.encoder.layer.0.output")
    with pytest.raises(
        ModelError, match=r"cannot be loaded \(its weights .* not numbers\); copy or download"
    ):
        load_captioner(ModelSource(str(folder)))


def test_an_onnx_file_that_fails_while_it_runs_names_the_backend_that_does_not(exact, tmp_path):
    pictures = [Image.new("RGB", (40, 40), "red")]
    for tower in (broken_session(tmp_path), broken_session(tmp_path, not_a_number=True)):
        encoder = exact.running(tower, ONNX)
        with pytest.raises(
            ModelError, match="The image model in onnx fp32 failed while it ran .*--backend torch"
        ):
            encoder.embed_images(pictures)


def test_a_way_that_fails_while_it_is_compared_is_passed_over(exact, tmp_path):
    noise = np.random.default_rng(2)
    pictures = [Image.fromarray(noise.integers(0, 255, (40, 40, 3), np.uint8)) for _ in range(32)]
    chosen = choose_backend(
        exact,
        Requested(),
        build=lambda way: exact.running(broken_session(tmp_path), way),
        sample=lambda: pictures,
        processor=Processor(),
        noted={},
    )
    assert chosen.encoder.execution == EXACT
    assert "torch fp32: The image model in onnx fp32 failed while it ran" in chosen.sentence


@pytest.mark.parametrize(
    "way", [Execution("onnx", "fp32"), Execution("onnx", "int8"), Execution("torch", "bf16")]
)
def test_a_tower_of_another_build_cannot_be_run_faster_and_says_so(exact, tmp_path, way):
    """Of AIMv2, for one: it embeds pictures, and its layers have other names than CLIP's."""
    from transformers import Aimv2VisionConfig, Aimv2VisionModel

    config = Aimv2VisionConfig(**model_folders.TINY, image_size=32, patch_size=8)
    other = exact.running(TorchTower(Aimv2VisionModel(config)), EXACT)
    with pytest.raises(ModelError, match=f"The image model cannot be run in {way} .*--precision fp32"):
        run_in(way, other, cache=tmp_path)


@pytest.fixture
def voice(tmp_path):
    shutil.copytree(POCKET_WEIGHTS / "voice", tmp_path / "voice")
    return tmp_path / "voice"


def lose_special_tokens(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["added_tokens"] = []
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def overwrite_the_last_weights(folder):
    data = bytearray((folder / "model.bin").read_bytes())
    start = len(data) * 9 // 10
    data[start : start + 100_000] = b"\xff" * 100_000
    (folder / "model.bin").write_bytes(data)


@pytest.mark.parametrize("damage", [lose_special_tokens, overwrite_the_last_weights])
def test_a_voice_model_that_fails_while_it_runs_names_the_option(voice, damage):
    damage(voice)
    recording = recordings.packed(recordings.spoken("two black cats"))
    with pytest.raises(ModelError, match="The voice model voice failed while it ran .*--voice-model"):
        load_transcriber(str(voice)).transcribe(recording)


def test_a_model_that_gets_no_memory_says_so_and_the_process_goes_on():
    """The limit holds for the whole address space, so a process of its own has it."""
    code = """
import resource, sys
from PIL import Image
from models.encoders import load_image_encoder
from models.errors import ModelError
from models.profiles import get_profile
import numpy as np

images = load_image_encoder(get_profile("pocket"))
pixels = np.zeros((1024, 3, 96, 96), np.float32)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 30_000_000, resource.RLIM_INFINITY))
for attempt in (lambda: images.embed_pixels(pixels), lambda: images.embed_images([Image.new("RGB", (9, 9))])):
    try:
        print(attempt().shape)
    except ModelError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    failed, worked = done.stdout.splitlines()
    assert failed.startswith("The image model in torch fp32 failed while it ran (")
    assert failed.endswith("; free some memory, or copy or download it again.")
    assert worked == "(1, 128)"
