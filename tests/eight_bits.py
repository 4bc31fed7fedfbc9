"""Eight-bit models computed as the ONNX standard defines them, on any processor.

Processors without instructions for eight bits add two products in sixteen, which overflow (ONNX Runtime's own
documentation says so). What a model is worth shows only where nothing overflows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from models.encoders import Execution, ImageEncoder
from models.fast.choose import probe, run_in

INT8 = Execution("onnx", "int8")


class MatMulIntegerToFloat(OpRun):
    """ONNX Runtime's product of eight-bit numbers with scales, which the standard does not have."""

    op_domain = "com.microsoft"

    def _run(self, a, b, a_scale, b_scale, a_zero=0, b_zero=0, bias=0):  # noqa: PLR0917
        """Return float32 `[..., columns of b]`, summed exactly in float64."""
        product = (a.astype(float) - a_zero) @ (b.astype(float) - b_zero)
        return (np.float32(product * a_scale * b_scale + bias),)


def in_eight_bits(exact: ImageEncoder, *, cache: Path) -> ImageEncoder:
    """Return an encoder in int8, run as in the product on a processor made for it, else by definition."""
    encoder = run_in(INT8, exact, cache=cache)
    return encoder if probe().int8 else by_definition(exact, cache=cache)


def by_definition(exact: ImageEncoder, *, cache: Path) -> ImageEncoder:
    """Return an encoder in int8 that was exported into `cache`, computed by the reference implementation."""
    (path,) = cache.glob(f"onnx/{exact.revision.removeprefix('sha256:')}-*-int8-*.onnx")
    model = ReferenceEvaluator(onnx.load(path), new_ops=[MatMulIntegerToFloat])
    (name,) = model.input_names
    tower: Callable[[np.ndarray], np.ndarray] = lambda pixels: model.run(None, {name: pixels})[0]  # noqa: E731
    return exact.running(tower, INT8)
