"""A vision tower in ONNX Runtime: exported on first use, kept in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from models.errors import ModelError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import torch

RECIPE = 2
"""counts the ways in which towers were exported: another one, another file"""
OPSET = 17
AT_ONCE = 8
"""pictures at most that a thread takes; what passes between the layers then stays in the processor's cache"""


class OnnxTower:
    """An ONNX file in ONNX Runtime, called with pixels as the torch tower is; on the CPU, in any thread.

    Each thread takes some of the pictures through all layers. Threads that share each layer would wait for
    one another in every one, and all of them for one that another job holds up.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="tower")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a class for each of its status codes
            raise ModelError(
                f"ONNX Runtime cannot load {path} ({first_line(error)}); use --backend torch."
            ) from error

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 `[n, dims]`, of any length, for float32 `[n, 3, height, width]`."""
        import numpy as np

        size = min(AT_ONCE, max(1, -(-len(pixels) // self._threads)))
        parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        return np.concatenate(list(self._pool.map(self._run, parts)))

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        return self._session.run(None, {"pixels": pixels})[0]


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
