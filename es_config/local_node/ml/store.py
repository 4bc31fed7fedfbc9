"""Trained models of the local node on disk: configuration, vocabulary, definition and deployment.

Every file appears whole or not at all, so that a node that was killed finds nothing half-written.
"""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from pathlib import Path
from typing import Any

from es_config.local_node.rest import RestError

BAD_PARTS = "Unable to deploy model, please delete and recreate the model definition"


class ModelStore:
    """One folder for each model below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)
        for left_over in root.glob(".*"):
            shutil.rmtree(left_over)

    def ids(self) -> list[str]:
        """Return the ids of all models, sorted."""
        return sorted(path.name for path in self._root.iterdir() if not path.name.startswith("."))

    def create(self, config: dict[str, Any]) -> None:
        """Keep a new model. Raises `RestError` 400 when its id is taken."""
        folder = self._root / f".{uuid.uuid4().hex}"
        (folder / "parts").mkdir(parents=True)
        _write(folder / "config.json", config)
        try:
            folder.rename(self._root / config["model_id"])
        except OSError as error:
            shutil.rmtree(folder)
            raise _exists(f"Trained machine learning model [{config['model_id']}] already exists") from error

    def config(self, model_id: str) -> dict[str, Any]:
        """Return the configuration with `model_size_bytes`. Raises `RestError` 404 for an unknown model."""
        config = _read(self._folder(model_id) / "config.json")
        return {**config, "model_size_bytes": self.definition_length(model_id)}

    def put_part(self, model_id: str, part: int, data: bytes, *, total_length: int, total_parts: int) -> None:
        """Keep one part of the definition, in any order. Raises `RestError` 400 when it is there already."""
        parts = self._folder(model_id) / "parts"
        # What was said of a part is in its name: both appear at once.
        target = parts / f"{part:05d}.{total_parts}.{total_length}"
        partial = parts / f".{uuid.uuid4().hex}"
        with self._lock:
            if self._assembled(model_id).exists() or next(parts.glob(f"{part:05d}.*"), None):
                raise _exists(
                    f"Trained machine learning model chunked doc [{model_id}][{part}] already exists"
                )
            try:
                partial.write_bytes(data)
                partial.rename(target)
            finally:
                partial.unlink(missing_ok=True)

    def put_vocabulary(self, model_id: str, vocabulary: dict[str, Any]) -> None:
        """Keep the vocabulary. Raises `RestError` 400 when there is one already."""
        target = self._folder(model_id) / "vocabulary.json"
        with self._lock:
            if target.exists():
                raise _exists(f"Trained machine learning model vocabulary [{model_id}] already exists")
            _write(target, vocabulary)

    def vocabulary(self, model_id: str) -> list[str] | None:
        """Return the tokens in the order of their ids, or None before they were uploaded."""
        path = self._folder(model_id) / "vocabulary.json"
        return _read(path)["vocabulary"] if path.exists() else None

    def definition_length(self, model_id: str) -> int:
        """Return the length in bytes that the client announced, 0 before the first part."""
        if self._assembled(model_id).exists():
            return self._assembled(model_id).stat().st_size
        parts = self._parts(model_id)
        return _totals(parts[0])[1] if parts else 0

    def is_defined(self, model_id: str) -> bool:
        """Say whether every part of the definition is there."""
        try:
            self.check_definition(model_id)
        except RestError:
            return False
        return True

    def check_definition(self, model_id: str) -> None:
        """Raise `RestError` 404 without any part and 400 when parts are missing or disagree."""
        if self._assembled(model_id).exists():
            return
        parts = self._parts(model_id)
        if not parts:
            reason = f"Could not find trained model definition [{model_id}]"
            raise RestError(404, reason)
        first_total = _totals(parts[0])[1]
        for part in parts:
            if (total := _totals(part)[1]) != first_total:
                raise RestError(
                    400,
                    f"[{model_id}] [total_definition_length] must be the same in all model definition parts."
                    f" The value [{total}] in model definition part [{_number(part)}] does not match the"
                    f" value [{first_total}] in part [{_number(parts[0])}]. {BAD_PARTS}",
                )
        is_last = _number(parts[-1]) == _totals(parts[-1])[0] - 1
        if not is_last or sum(part.stat().st_size for part in parts) != first_total:
            reason = (
                f"Model definition truncated. Unable to deserialize trained model definition [{model_id}]"
            )
            raise RestError(400, reason)

    def definition(self, model_id: str) -> Path:
        """Return the file that holds the whole definition, made of its parts on first use."""
        self.check_definition(model_id)
        assembled = self._assembled(model_id)
        with self._lock:
            if not assembled.exists():
                parts, partial = self._parts(model_id), assembled.with_suffix(".tmp")
                with partial.open("wb") as whole:
                    for part in parts:
                        with part.open("rb") as stream:
                            shutil.copyfileobj(stream, whole)
                partial.rename(assembled)
                for part in parts:
                    part.unlink()
        return assembled

    def deployment(self, model_id: str) -> dict[str, Any] | None:
        """Return the parameters that a deployment was started with, or None when there is none."""
        path = self._folder(model_id) / "deployment.json"
        return _read(path) if path.exists() else None

    def set_deployment(self, model_id: str, parameters: dict[str, Any] | None) -> None:
        """Remember that a deployment was started, or with None that it was stopped."""
        path = self._folder(model_id) / "deployment.json"
        if parameters is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, parameters)

    def delete(self, model_id: str) -> None:
        """Remove a model at once. Raises `RestError` 404 when there is no such model."""
        doomed = self._root / f".{uuid.uuid4().hex}"
        self._folder(model_id).rename(doomed)
        shutil.rmtree(doomed)

    def _folder(self, model_id: str) -> Path:
        if model_id not in self.ids():  # an id that no model has never becomes a path
            raise RestError(404, f"Could not find trained model [{model_id}]")
        return self._root / model_id

    def _assembled(self, model_id: str) -> Path:
        return self._folder(model_id) / "definition.pt"

    def _parts(self, model_id: str) -> list[Path]:
        return sorted((self._folder(model_id) / "parts").glob("[0-9]*"))


def _number(part: Path) -> int:
    return int(part.name.split(".")[0])


def _totals(part: Path) -> tuple[int, int]:
    """Return (total_parts, total_definition_length) as the client said them with this part."""
    _, total_parts, total_length = part.name.split(".")
    return int(total_parts), int(total_length)


def _exists(reason: str) -> RestError:
    return RestError(400, reason, "resource_already_exists_exception")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: Any) -> None:
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)
