"""A vision tower in ONNX Runtime: exported on first use, kept in a cache."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import TYPE_CHECKING

from models.errors import ModelError
from models.onnx_files import made_once

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import torch

RECIPE = 1
"""counts the ways in which towers were exported: another one, another file"""
OPSET = 17
AT_ONCE = 8
"""pictures for each thread; what passes between the layers then stays in the processor's cache"""


class OnnxTower:
    """An ONNX file in ONNX Runtime, called with pixels as the torch tower is; on the CPU, in any thread."""

    def __init__(self, path: Path) -> None:
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads = torch.get_num_threads()
        self._at_once = AT_ONCE * threads
        options.log_severity_level = 3
        # Its threads would otherwise spin while they wait, on the cores that decode pictures.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a class for each of its status codes
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"ONNX Runtime cannot load {path} ({reason}); use --backend torch.") from error

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 `[n, dims]`, of any length, for float32 `[n, 3, height, width]`."""
        import numpy as np

        size = self._at_once
        parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        return np.concatenate([self._session.run(None, {"pixels": part})[0] for part in parts])


def onnx_tower(
    model: torch.nn.Module,
    *,
    precision: str,
    revision: str,
    cache: Path,
    calibration: Callable[[], np.ndarray],
) -> OnnxTower:
    """Return a CLIP or SigLIP vision tower for ONNX Runtime, in `fp32` or `int8`.

    `revision` is the fingerprint of the weights; `calibration` returns preprocessed pictures and is asked
    only when an eight-bit tower has to be made. Raises `ModelError`.
    """
    config = json.dumps(model.config.to_dict(), sort_keys=True, default=str)
    of_config = hashlib.sha256(config.encode()).hexdigest()[:8]
    name = f"{revision.removeprefix('sha256:')}-{of_config}-{precision}-{RECIPE}.onnx"

    def make(path: Path) -> None:
        own_operators = {"com.microsoft": 1} if precision == "int8" else None
        _export(_prepared(model, precision, calibration), path, _sides(model), own_operators)

    return OnnxTower(made_once(cache / "onnx" / name, make))


def _prepared(
    model: torch.nn.Module, precision: str, calibration: Callable[[], np.ndarray]
) -> torch.nn.Module:
    import torch

    from models.int8 import to_int8
    from models.lean_tower import LeanTower

    lean = LeanTower(model).eval()
    return to_int8(lean, torch.from_numpy(calibration())) if precision == "int8" else lean


def _sides(model: torch.nn.Module) -> int:
    config = getattr(model.config, "vision_config", model.config)
    return int(config.image_size)


def _export(tower: torch.nn.Module, path: Path, sides: int, own_operators: dict[str, int] | None) -> None:
    import torch

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of shapes that are the same for every picture
        try:
            torch.onnx.export(
                tower,
                (torch.zeros(2, 3, sides, sides),),
                str(path),
                input_names=["pixels"],
                output_names=["vectors"],
                dynamic_axes={"pixels": {0: "n"}, "vectors": {0: "n"}},
                opset_version=OPSET,
                custom_opsets=own_operators,
                dynamo=False,
            )
        except (RuntimeError, torch.onnx.OnnxExporterError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"The image model cannot be written for ONNX Runtime ({reason}); use --backend torch."
            ) from error
