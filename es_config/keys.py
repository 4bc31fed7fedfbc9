"""API keys with the fewest privileges that the commands of a machine need."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from es_config.vector_field import COMPARE_PREFIX, TRIAL_PREFIX


@dataclass(frozen=True)
class KeyRequest:
    """A request that creates the API key of one kind of machine: `POST /_security/api_key`."""

    machine: str
    """`search`, `ingest` or `upload`"""
    commands: str
    """what the key is for, in words"""
    body: dict[str, Any]

    def as_curl(self, url: str, *, ca_certs: str | None = None) -> str:
        """Return the request as a curl command, which asks for the password of the user `elastic`."""
        ca = f" --cacert {shlex.quote(ca_certs)}" if ca_certs else ""
        return (
            f"curl{ca} --user elastic -X POST {shlex.quote(f'{url}/_security/api_key')} \\\n"
            f"  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(json.dumps(self.body))}"
        )


def key_requests(alias: str) -> list[KeyRequest]:
    """Return the requests for the keys of a searching, an ingesting and an uploading machine.

    Beside the alias itself, the names of its indices and of the aliases that `glimpse reindex` and notes in
    `_meta` use begin with it and a hyphen. An alias is changed only by who may `manage` it and its index.
    """
    ours = [alias, f"{alias}-*"]
    return [
        _request(
            "search",
            alias,
            "search, knn, describe, duplicates, hidden, evaluate of one model, status, doctor,"
            " `serve --read-only`",
            cluster=["monitor_ml"],
            indices=[_granted(ours, "read", "view_index_metadata")],
        ),
        _request(
            "ingest",
            alias,
            "all that, and ingest, remove, restore, caption, words, reindex, index, tune, advise, calibrate,"
            " evaluate of several models, `serve` where people add pictures and correct captions",
            cluster=["monitor_ml"],
            indices=[
                _granted(ours, "read", "write", "manage"),
                _granted([f"{COMPARE_PREFIX}-*", f"{TRIAL_PREFIX}-*"], "read", "write", "manage"),
            ],
        ),
        _request(
            "upload",
            alias,
            "model upload, start, stop and delete",
            cluster=["manage_ml"],
            indices=[_granted(ours, "view_index_metadata")],  # the index says which model it needs
        ),
    ]


def _request(
    machine: str, alias: str, commands: str, *, cluster: list[str], indices: list[dict[str, Any]]
) -> KeyRequest:
    name = f"glimpse-{machine}-{alias}"
    rights = {"cluster": cluster, "indices": indices}
    return KeyRequest(machine, commands, {"name": name, "role_descriptors": {name: rights}})


def _granted(names: list[str], *privileges: str) -> dict[str, Any]:
    return {"names": names, "privileges": list(privileges)}
