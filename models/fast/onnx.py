"""Image towers as ONNX files, in fp32 and in int8, run without torch.

Weights have a scale for each output, states a scale for each token: one picture's vector never depends on
its neighbours in a batch. Channels that are much larger than others would take the eight bits for
themselves, so their size is first moved into the weights, where nothing is lost (SmoothQuant).
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from torch import nn

from models.encoders import ImageEncoder, PairedTextEncoder, SentenceEncoder, TextEncoder, TorchTower
from models.errors import ModelError, first_line

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPModel, PretrainedConfig
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPVisionTransformer

RECIPE = 2
"""counts the ways in which towers were exported: another one, another file"""
OPSET = 17


def onnx_file(
    model: torch.nn.Module,
    *,
    precision: str,
    revision: str,
    cache: Path,
    calibration: Callable[[], np.ndarray],
) -> Path:
    """Return the file of a CLIP or SigLIP vision tower for ONNX Runtime, in `fp32` or `int8`.

    `revision` is the fingerprint of the weights; `calibration` returns preprocessed pictures and is asked
    only when an eight-bit tower has to be made. Raises `ModelError`.
    """
    config = cast("PretrainedConfig", model.config)
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    name = f"{revision.removeprefix('sha256:')}-{digest.hexdigest()[:8]}-{precision}-{RECIPE}.onnx"
    side = int(getattr(config, "vision_config", config).image_size)

    def make(path: Path) -> None:
        lean = LeanTower(model).eval()
        if precision == "int8":
            lean = to_int8(lean, torch.from_numpy(calibration()))
        _export(lean, path, side, {"com.microsoft": 1} if precision == "int8" else None)

    return made_once(cache / "onnx" / name, make)


def export_image_tower(exact: ImageEncoder, path: Path) -> None:
    """Write the tower of an encoder that runs in torch as it is, in fp32. Raises `ModelError`."""
    if not isinstance(exact.tower, TorchTower):
        raise TypeError("only an encoder that runs in torch can be exported")
    model = copy.deepcopy(exact.tower.model).cpu()
    config = cast("PretrainedConfig", model.config)
    side = int(getattr(config, "vision_config", config).image_size)
    _export(LeanTower(model).eval(), path, side, None)


class _SentenceTower(nn.Module):
    """The modules of a sentence-transformers model, from tokens to a vector."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.parts = nn.ModuleList(list(model.children()))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return `[n, dims]`, of any length, for int64 `[n, tokens]` each."""
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        for part in self.parts:
            features = part(features)
        return features["sentence_embedding"]


class _PairedTower(nn.Module):
    """The text tower of a CLIP or SigLIP model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return `[n, dims]`, of any length, for int64 `[n, tokens]` each."""
        paired = cast("CLIPModel", self.model)
        vectors: torch.Tensor = paired.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
        return vectors


def export_text_tower(exact: TextEncoder, path: Path, *, length: int | None) -> list[str]:
    """Write the text tower of an encoder that runs in torch, and return the names of its inputs.

    With a `length`, all texts have so many tokens. Raises `ModelError`.
    """
    names = ["input_ids", "attention_mask"]
    if isinstance(exact, SentenceEncoder):
        tower: nn.Module = _SentenceTower(copy.deepcopy(exact.model).cpu())
    elif isinstance(exact, PairedTextEncoder):
        tower = _PairedTower(copy.deepcopy(exact.model).cpu())
        if exact.padding == "max_length":  # as the encoder asks it
            names.remove("attention_mask")
    else:
        raise TypeError("only an encoder that runs in torch can be exported")
    tokens = torch.ones(1, length or 7, dtype=torch.int64)
    axes = {name: {0: "n"} if length else {0: "n", 1: "tokens"} for name in names}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of shapes that are the same for every text
        try:
            torch.onnx.export(
                tower.eval(),
                tuple(tokens for _ in names),
                str(path),
                input_names=names,
                output_names=["vectors"],
                dynamic_axes={**axes, "vectors": {0: "n"}},
                opset_version=OPSET,
                dynamo=False,
            )
        except (RuntimeError, torch.onnx.OnnxExporterError) as error:
            raise ModelError(
                f"The text model cannot be written for ONNX Runtime ({first_line(error)})."
            ) from error
    return names


def _export(tower: torch.nn.Module, path: Path, side: int, own_operators: dict[str, int] | None) -> None:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of shapes that are the same for every picture
        try:
            torch.onnx.export(
                tower,
                (torch.zeros(2, 3, side, side),),
                str(path),
                input_names=["pixels"],
                output_names=["vectors"],
                dynamic_axes={"pixels": {0: "n"}, "vectors": {0: "n"}},
                opset_version=OPSET,
                custom_opsets=own_operators,
                dynamo=False,
            )
        except (RuntimeError, torch.onnx.OnnxExporterError) as error:
            raise ModelError(
                f"The image model cannot be written for ONNX Runtime ({first_line(error)});"
                " use --backend torch."
            ) from error


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """Return `path`, written by `make` when it is absent or not as it was written.

    Processes that ask at the same time wait for the first one. A file appears whole or not at all; its
    SHA-256 stands beside it, so that a damaged one is noticed and made again. Raises `ModelError` when the
    folder cannot be written.
    """
    from filelock import FileLock

    if _intact(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not _intact(path):
                _make(path, make)
    except OSError as error:
        raise ModelError(
            f"The model for ONNX Runtime cannot be kept in {path.parent} ({error.strerror or error}); make"
            " room or set GLIMPSE_HOME, or use --backend torch."
        ) from error
    return path


def _make(path: Path, make: Callable[[Path], None]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        make(part)
        digest = _digest(part)
        part.replace(path)
        note = part.with_suffix(".note")
        note.write_text(digest, encoding="ascii")
        note.replace(_note(path))
    finally:
        part.unlink(missing_ok=True)


def _intact(path: Path) -> bool:
    try:
        return _note(path).read_text(encoding="ascii") == _digest(path)
    except (OSError, UnicodeDecodeError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


class LeanTower(nn.Module):
    """The vision tower of a CLIP or SigLIP model, for inference alone: pixels in, vectors out.

    CLIP reads one token of its last layer, so that layer is computed for that token alone. The given model
    is copied where it is changed and stays as it was.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        vision = cast("CLIPVisionTransformer", model.vision_model)
        self.embeddings = vision.embeddings
        self.norm_in = getattr(vision, "pre_layrnorm", nn.Identity())  # transformers spells it so
        has_head = getattr(vision, "use_head", False)  # SigLIP's
        self.head = cast("nn.Module", vision.head) if has_head else None
        *first, last = vision.encoder.layers
        self.layers = nn.ModuleList([LeanLayer(layer) for layer in first])
        self.layers.append(LeanLayer(last, first_token_only=self.head is None))
        self.norm_out = vision.post_layernorm
        self.projection = getattr(model, "visual_projection", nn.Identity())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return `[n, dims]`, of any length, for preprocessed pictures `[n, 3, height, width]`."""
        states = self.norm_in(self.embeddings(pixels))
        for layer in self.layers:
            states = layer(states)
        states = self.norm_out(states)
        vectors: torch.Tensor = self.projection(states[:, 0] if self.head is None else self.head(states))
        return vectors


class LeanLayer(nn.Module):
    """One layer of the encoder, with keys and values in one product and the scale inside the queries."""

    def __init__(self, layer: CLIPEncoderLayer, *, first_token_only: bool = False) -> None:
        super().__init__()
        attention = layer.self_attn
        self.heads = attention.num_heads
        self.first_token_only = first_token_only
        self.norm1, self.norm2 = _copy_norm(layer.layer_norm1), _copy_norm(layer.layer_norm2)
        self.queries = _joined(attention.q_proj, factor=attention.scale)
        self.keys_values = _joined(attention.k_proj, attention.v_proj)
        self.out = _joined(attention.out_proj)
        self.widen, self.act, self.narrow = _joined(layer.mlp.fc1), layer.mlp.activation_fn, layer.mlp.fc2

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return states `[n, tokens, width]`, or of the first token alone if only that is read."""
        normal = self.norm1(states)
        if self.first_token_only:
            states, asking = states[:, :1], normal[:, :1]
        else:
            asking = normal
        states = states + self.out(self._attend(self.queries(asking), self.keys_values(normal)))
        added: torch.Tensor = self.narrow(self.act(self.widen(self.norm2(states))))
        return states + added

    def _attend(self, queries: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        keys, values = (self._by_head(part) for part in keys_values.chunk(2, dim=-1))
        weights = torch.softmax(self._by_head(queries) @ keys.transpose(-1, -2), dim=-1)
        return (weights @ values).transpose(1, 2).flatten(2)

    def _by_head(self, states: torch.Tensor) -> torch.Tensor:
        heads: torch.Tensor = states.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)


def _joined(*linears: nn.Linear, factor: float = 1.0) -> nn.Linear:
    """Return a copy of one linear layer, or of several that read the same states as one."""
    weight = torch.cat([each.weight.detach() for each in linears]) * factor
    bias = torch.cat([each.bias.detach() for each in linears]) * factor
    joined = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    joined.weight, joined.bias = nn.Parameter(weight), nn.Parameter(bias)
    return joined


def _copy_norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    copy = nn.LayerNorm(list(norm.normalized_shape), eps=norm.eps, device="meta")
    copy.weight, copy.bias = (
        nn.Parameter(norm.weight.detach().clone()),
        nn.Parameter(norm.bias.detach().clone()),
    )
    return copy


LARGEST = 127
SMALLEST = 1e-5
"""channels that are silent on the calibration pictures count as this large"""


def to_int8(tower: LeanTower, pixels: torch.Tensor) -> LeanTower:
    """Change a tower in place to eight-bit layers, balanced on calibration pictures, and return it.

    `pixels` is float32 `[n, 3, height, width]`. Patches, pooling and projection stay in float32.
    """
    for layer, largest in zip(tower.layers, _largest_inputs(tower, pixels), strict=True):
        _balance(layer, largest)
        for name in ("queries", "keys_values", "out", "widen", "narrow"):
            setattr(layer, name, Int8Linear(getattr(layer, name)))
    return tower


class Int8Linear(nn.Module):
    """A linear layer with int8 weights `[inputs, outputs]` and states rounded to int8 token by token."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = (weight.abs().amax(dim=1) / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8).t().contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", linear.bias.detach().clone())

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return float32 `[..., outputs]`."""
        product: torch.Tensor = _Product.apply(states, self.weight, self.scale, self.bias)
        return product


class Graph(Protocol):
    """torch's graph while it is written as ONNX."""

    def op(self, operator: str, *inputs: object, **attributes: object) -> object:
        """Add an operator and return its value."""


class _Product(torch.autograd.Function):
    """Computed here by torch, and written as ONNX Runtime's own operators when it is exported."""

    @staticmethod
    def forward(
        _ctx: object, states: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        step = states.abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST) / LARGEST
        return ((states / step).round() @ weight.float()) * scale * step + bias

    @staticmethod
    def symbolic(g: Graph, states: object, weight: object, scale: object, bias: object) -> object:
        def constant(value: float, dtype: torch.dtype = torch.float32) -> object:
            return g.op("Constant", value_t=torch.tensor(value, dtype=dtype))

        largest = g.op("ReduceMax", g.op("Abs", states), axes_i=[-1], keepdims_i=1)
        step = g.op("Mul", g.op("Max", largest, constant(SMALLEST)), constant(1 / LARGEST))
        zero = constant(LARGEST + 1, torch.uint8)  # processors multiply uint8 by int8
        rounded = g.op("QuantizeLinear", g.op("Div", states, step), constant(1.0), zero)
        product = g.op("com.microsoft::MatMulIntegerToFloat", rounded, weight, constant(1.0), scale, zero)
        return g.op("Add", g.op("Mul", product, step), bias)


def _largest_inputs(tower: LeanTower, pixels: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """Return for each layer the largest absolute value of each channel that enters its products."""
    found: list[dict[str, torch.Tensor]] = [{} for _ in tower.layers]
    hooks = []
    for seen, layer in zip(found, tower.layers, strict=True):
        for name in ("keys_values", "out", "widen"):

            def note(
                _module: nn.Module,
                inputs: tuple[torch.Tensor, ...],
                seen: dict[str, torch.Tensor] = seen,
                name: str = name,
            ) -> None:
                seen[name] = inputs[0].abs().flatten(0, -2).amax(dim=0)

            hooks.append(getattr(layer, name).register_forward_pre_hook(note))
    with torch.inference_mode():
        tower(pixels)
    for hook in hooks:
        hook.remove()
    return found


def _balance(layer: LeanLayer, largest: dict[str, torch.Tensor]) -> None:
    """Divide channels and multiply the weights that read them by the same numbers: the layer stays equal."""
    with torch.inference_mode():
        for norm, name, readers in (
            (layer.norm1, "keys_values", (layer.queries, layer.keys_values)),
            (layer.norm2, "widen", (layer.widen,)),
        ):
            factor = _factor(largest[name], readers)
            norm.weight.div_(factor)
            norm.bias.div_(factor)
        factor = _factor(largest["out"], (layer.out,))
        width = len(factor)
        layer.keys_values.weight[width:] /= factor[:, None]
        layer.keys_values.bias[width:] /= factor


def _factor(largest: torch.Tensor, readers: tuple[nn.Linear, ...]) -> torch.Tensor:
    """Return the geometric middle between states and weights, and multiply the readers' weights by it."""
    weights = torch.cat([each.weight for each in readers]).abs().amax(dim=0)
    factor = (largest.clamp(min=SMALLEST) / weights.clamp(min=SMALLEST)).sqrt()
    for each in readers:
        each.weight *= factor
    return factor
