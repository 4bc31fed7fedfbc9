"""A TorchScript of a few kilobytes that embeds tokens, and its upload over HTTP, part by part."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "boat", "##s", "sea", "!"]


def torchscript(path: Path, *, dims: int = 4, gate: Path | None = None) -> bytes:
    """Return a definition: the mean of the tokens' embeddings. With a `gate`, it waits until that is open."""
    import torch

    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(len(VOCABULARY), dims)
            self.gate = str(gate or "")

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor, places: torch.Tensor):
            looks = 0  # it is part of size and result: TorchScript drops a loop that changes neither
            if self.gate != "":
                while bool(torch.from_file(self.gate, True, 1 + looks % 2, dtype=torch.int32)[0] != 0):
                    looks += 1
            return self.embedding(ids).mean(dim=1) + 0 * looks + 0 * (mask + types + places).sum()

    torch.manual_seed(3)
    torch.jit.save(torch.jit.script(Mean().eval()), str(path))
    return path.read_bytes()


class Gate:
    """A file that holds a model back: a processor of any speed answers only after the gate has opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(8))

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Hold every text until the block ends."""
        self._write(b"\1")
        try:
            yield
        finally:
            self._write(b"\0")

    def _write(self, byte: bytes) -> None:
        with self.path.open("r+b") as file:  # in place: a reader of a file that is cut short dies
            file.write(byte * 8)


def config(**tokenization: object) -> dict:
    """Return the body that creates a model of `torchscript`. The arguments go into its tokenization."""
    options = {"tokenization": {"bert": {"do_lower_case": True, **tokenization}}, "embedding_size": 4}
    return {
        "model_type": "pytorch",
        "input": {"field_names": ["text_field"]},
        "inference_config": {"text_embedding": options},
    }


def parts(definition: bytes, count: int) -> list[dict]:
    """Return the bodies that upload `definition` in `count` parts."""
    size = -(-len(definition) // count)
    cut = [definition[start : start + size] for start in range(0, len(definition), size)]
    return [
        {
            "definition": base64.b64encode(part).decode(),
            "total_definition_length": len(definition),
            "total_parts": len(cut),
        }
        for part in cut
    ]


@contextmanager
def fresh_model(client: Elasticsearch) -> Iterator[str]:
    """Give an unused model id. The model that gets it is deleted afterwards."""
    model_id = f"test-{uuid.uuid4()}"
    try:
        yield model_id
    finally:
        client.options(ignore_status=404).ml.delete_trained_model(model_id=model_id, force=True)


def put_parts(
    client: Elasticsearch, model_id: str, bodies: list[dict], order: list[int] | None = None
) -> None:
    """Upload the parts, in their order or in another."""
    for part in order if order is not None else range(len(bodies)):
        client.ml.put_trained_model_definition_part(model_id=model_id, part=part, **bodies[part])


def upload(client: Elasticsearch, model_id: str, definition: bytes, **tokenization: object) -> None:
    """Create a model with everything it needs, without starting it."""
    client.ml.put_trained_model(model_id=model_id, **config(**tokenization))
    put_parts(client, model_id, parts(definition, 2))
    client.ml.put_trained_model_vocabulary(model_id=model_id, vocabulary=VOCABULARY)
