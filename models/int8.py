"""Products in eight bits that stay close to float32, and the same whatever else is in the batch.

Weights have a scale for each output, states a scale for each token: one picture's vector never depends on
its neighbours in a batch. Channels that are much larger than others would take the eight bits for
themselves, so their size is first moved into the weights, where nothing is lost (SmoothQuant).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from models.lean_tower import LeanLayer, LeanTower

LARGEST = 127
SMALLEST = 1e-5
"""channels that are silent on the calibration pictures count as this large"""


def to_int8(tower: LeanTower, pixels: torch.Tensor) -> LeanTower:
    """Change a tower in place to eight-bit layers, balanced on calibration pictures; return it.

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
        return _Product.apply(states, self.weight, self.scale, self.bias)


class _Product(torch.autograd.Function):
    """Computed here by torch, and written as ONNX Runtime's own operators when it is exported."""

    @staticmethod
    def forward(_ctx, states, weight, scale, bias):
        step = states.abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST) / LARGEST
        return ((states / step).round() @ weight.float()) * scale * step + bias

    @staticmethod
    def symbolic(g, states, weight, scale, bias):
        def constant(value, dtype=torch.float32):
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

            def note(_module, inputs, seen=seen, name=name):
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
            norm.weight /= factor
            norm.bias /= factor
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
