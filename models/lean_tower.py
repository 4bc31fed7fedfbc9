"""A vision tower that computes only what its vector needs: the same numbers from fewer operations."""

from __future__ import annotations

import torch
from torch import nn


class LeanTower(nn.Module):
    """The vision tower of a CLIP or SigLIP model, for inference alone: pixels in, vectors out.

    CLIP reads one token of its last layer, so that layer is computed for that token alone. The given model
    is copied where it is changed and stays as it was.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        vision = model.vision_model
        self.embeddings = vision.embeddings
        self.norm_in = getattr(vision, "pre_layrnorm", nn.Identity())  # transformers spells it so
        self.head = vision.head if getattr(vision, "use_head", False) else None
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
        return self.projection(states[:, 0] if self.head is None else self.head(states))


class LeanLayer(nn.Module):
    """One layer of the encoder, with keys and values in one product and the scale inside the queries."""

    def __init__(self, layer: nn.Module, *, first_token_only: bool = False) -> None:
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
        """Return states `[n, tokens, width]`; of the first token alone where only that is read."""
        normal = self.norm1(states)
        if self.first_token_only:
            states, asking = states[:, :1], normal[:, :1]
        else:
            asking = normal
        states = states + self.out(self._attend(self.queries(asking), self.keys_values(normal)))
        return states + self.narrow(self.act(self.widen(self.norm2(states))))

    def _attend(self, queries: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        keys, values = (self._by_head(part) for part in keys_values.chunk(2, dim=-1))
        weights = torch.softmax(self._by_head(queries) @ keys.transpose(-1, -2), dim=-1)
        return (weights @ values).transpose(1, 2).flatten(2)

    def _by_head(self, states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _joined(*linears: nn.Linear, factor: float = 1.0) -> nn.Linear:
    """Return a copy of one linear layer, or of several that read the same states as one."""
    weight = torch.cat([each.weight.detach() for each in linears]) * factor
    bias = torch.cat([each.bias.detach() for each in linears]) * factor
    joined = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    joined.weight, joined.bias = nn.Parameter(weight), nn.Parameter(bias)
    return joined


def _copy_norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    copy = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, device="meta")
    copy.weight, copy.bias = (
        nn.Parameter(norm.weight.detach().clone()),
        nn.Parameter(norm.bias.detach().clone()),
    )
    return copy
