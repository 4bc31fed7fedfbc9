"""Name the ways to run a vision tower: its library, its precision and the processor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.errors import ModelError

CPUINFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp"}


@dataclass(frozen=True)
class Execution:
    """One way to run a tower. `torch` in `fp32` is the exact one that others are compared with."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


EXACT = Execution("torch", "fp32")
FASTEST_FIRST = (
    Execution("onnx", "int8"),
    Execution("torch", "bf16"),
    Execution("onnx", "fp32"),
    EXACT,
)
"""every way, in the order of speed on a processor that has the instructions for it"""


@dataclass(frozen=True)
class Requested:
    """The backend and precision to use, where `auto` leaves the choice to a comparison."""

    backend: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Raise `ModelError` when no way fits."""
        self.ways()

    @property
    def is_auto(self) -> bool:
        """Whether both are left to choose."""
        return self.backend == self.precision == "auto"

    def ways(self) -> tuple[Execution, ...]:
        """Return the ways that fit, at least one, fastest first."""
        fitting = tuple(
            way
            for way in FASTEST_FIRST
            if self.backend in ("auto", way.backend) and self.precision in ("auto", way.precision)
        )
        if not fitting:
            does = {way.backend for way in FASTEST_FIRST if way.precision == self.precision}
            raise ModelError(
                f"The backend {self.backend} does not run in {self.precision}; leave out --backend, or use"
                f" --backend {does.pop()}."
            )
        return fitting


@dataclass(frozen=True)
class Processor:
    """The features of this machine that make low precision faster."""

    cuda: bool = False
    bf16: bool = False
    int8: bool = False

    def gains(self, way: Execution) -> bool:
        """Whether `way` is expected to be faster here than torch in float32."""
        if way == EXACT:
            return True
        if self.cuda:  # ONNX Runtime is installed for the CPU alone
            return way.backend == "torch"
        return way.precision == "fp32" or getattr(self, way.precision)


def probe(*, cpuinfo: Path = CPUINFO) -> Processor:
    """Ask the kernel and torch for the features of this machine. An unknown feature counts as absent."""
    import torch

    try:
        words = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:  # not Linux
        words = set()
    return Processor(
        cuda=torch.cuda.is_available(), bf16=bool(words & BF16_FLAGS), int8=bool(words & INT8_FLAGS)
    )
