"""A vision tower in torch, on the CPU or on CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


class TorchTower:
    """A CLIP or SigLIP vision tower, called with pixels; `model` is what it runs."""

    def __init__(self, model: torch.nn.Module) -> None:
        first = next(model.parameters())
        self.model = model
        self._to = {"device": first.device, "dtype": first.dtype}

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 `[n, dims]`, of any length, for float32 `[n, 3, height, width]`."""
        import torch

        with torch.inference_mode():
            return self._features(torch.from_numpy(pixels).to(**self._to)).float().cpu().numpy()

    def _features(self, values: torch.Tensor) -> torch.Tensor:
        if hasattr(self.model, "get_image_features"):
            return self.model.get_image_features(pixel_values=values)
        features = self.model(values)
        return getattr(features, "image_embeds", features)


def bf16_tower(model: torch.nn.Module) -> TorchTower:
    """Return a copy of a vision tower that computes in bfloat16, where the model is."""
    import copy

    import torch

    from models.lean_tower import LeanTower

    return TorchTower(copy.deepcopy(LeanTower(model)).eval().to(torch.bfloat16))
