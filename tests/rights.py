"""Elasticsearch's privileges: a proxy's answers to the requests of an API key, as its source defines them.

The names of actions and the patterns of privileges are those of `IndexPrivilege` and
`ClusterPrivilegeResolver`. Only requests that Glimpse sends are known: another one is an error of the test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from http_fronts import Answer

NAME = r"(?P<names>[^/_][^/]*)"
MODEL = r"/_ml/trained_models/[^/]+"
ACTIONS = [
    ("GET", r"/", "cluster:monitor/main"),
    ("GET", r"/_cluster/health(/.*)?", "cluster:monitor/health"),
    ("GET", r"/_nodes/.*", "cluster:monitor/nodes/stats"),
    ("GET", r"/_license", "cluster:monitor/xpack/license/get"),
    ("GET", MODEL, "cluster:monitor/xpack/ml/inference/get"),
    ("GET", rf"{MODEL}/_stats", "cluster:monitor/xpack/ml/inference/stats/get"),
    ("POST", rf"{MODEL}/_infer", "cluster:monitor/xpack/ml/inference/infer"),
    ("PUT", MODEL, "cluster:admin/xpack/ml/inference/put"),
    ("DELETE", MODEL, "cluster:admin/xpack/ml/inference/delete"),
    ("PUT", rf"{MODEL}/definition/\d+", "cluster:admin/xpack/ml/trained_models/part/put"),
    ("PUT", rf"{MODEL}/vocabulary", "cluster:admin/xpack/ml/trained_models/vocabulary/put"),
    ("POST", rf"{MODEL}/deployment/_start", "cluster:admin/xpack/ml/trained_models/deployment/start"),
    ("POST", rf"{MODEL}/deployment/_stop", "cluster:admin/xpack/ml/trained_models/deployment/stop"),
    ("POST", r"/_aliases", "indices:admin/aliases"),
    ("GET", rf"/_alias/{NAME}", "indices:admin/aliases/get"),
    ("GET", rf"/{NAME}/_alias", "indices:admin/aliases/get"),
    ("GET|HEAD", rf"/{NAME}", "indices:admin/get"),
    ("PUT", rf"/{NAME}", "indices:admin/create"),
    ("DELETE", rf"/{NAME}", "indices:admin/delete"),
    ("GET", rf"/{NAME}/_mapping", "indices:admin/mappings/get"),
    ("PUT", rf"/{NAME}/_mapping", "indices:admin/mapping/put"),
    ("GET", rf"/({NAME}|_all)/_settings(/.*)?", "indices:monitor/settings/get"),
    ("PUT", rf"/{NAME}/_settings", "indices:admin/settings/update"),
    ("PUT", rf"/{NAME}/_block/write", "indices:admin/block/add"),
    ("POST", rf"/{NAME}/_refresh", "indices:admin/refresh"),
    ("POST", rf"/{NAME}/_forcemerge", "indices:admin/forcemerge"),
    ("POST", rf"/{NAME}/_disk_usage", "indices:admin/analyze_disk_usage"),
    ("GET", rf"/{NAME}/_stats(/.*)?", "indices:monitor/stats"),
    ("GET|POST", rf"(/{NAME})?/_search", "indices:data/read/search"),
    ("POST", rf"(/{NAME})?/_msearch", "indices:data/read/msearch"),
    ("POST", rf"/{NAME}/_count", "indices:data/read/search"),
    ("POST", rf"/{NAME}/_mget", "indices:data/read/mget"),
    ("GET", rf"/{NAME}/_doc/.*", "indices:data/read/get"),
    ("POST", rf"/{NAME}/_pit", "indices:data/read/open_point_in_time"),
    ("DELETE", r"/_pit", "indices:data/read/close_point_in_time"),
    ("PUT|POST", rf"(/{NAME})?/_bulk", "indices:data/write/bulk"),
    ("POST", rf"/{NAME}/_update/.*", "indices:data/write/update"),
    ("POST", rf"/{NAME}/_delete_by_query", "indices:data/write/delete/byquery"),
]
INDEX_PRIVILEGES = {
    "read": ["indices:data/read/*"],
    "write": ["indices:data/write/*"],
    "monitor": ["indices:monitor/*"],
    "manage": ["indices:admin/*", "indices:monitor/*"],
    "view_index_metadata": [
        "indices:admin/aliases/get",
        "indices:admin/get",
        "indices:admin/mappings/get",
        "indices:monitor/settings/get",
    ],
}
CLUSTER_PRIVILEGES = {
    "monitor": ["cluster:monitor/*"],
    "monitor_ml": ["cluster:monitor/xpack/ml/*"],
    "manage_ml": ["cluster:admin/xpack/ml/*", "cluster:monitor/xpack/ml/*"],
}


def answers_for_key(body: dict[str, Any]) -> Callable[[str, str], Answer]:
    """Return a `decide` of `proxy` for the key that a create-API-key request makes."""
    (rights,) = body["role_descriptors"].values()

    def decide(method: str, path: str) -> Answer:
        path = path.partition("?")[0]
        if path == "/_security/user/_has_privileges":  # everybody may ask; no key here sees every index
            return 200, json.dumps({"has_all_requested": False}).encode()
        action, names = _asked(method, path)
        if action.startswith("cluster:"):
            granted = [CLUSTER_PRIVILEGES[name] for name in rights["cluster"]]
            return None if _fits(action, granted) else _forbidden(action, "cluster", CLUSTER_PRIVILEGES)
        for name in names or [""]:
            granted = [
                INDEX_PRIVILEGES[privilege]
                for each in rights["indices"]
                if not name or any(fnmatchcase(name, glob) for glob in each["names"])
                for privilege in each["privileges"]
            ]
            if not _fits(action, granted):
                return _forbidden(action, "index", INDEX_PRIVILEGES, on=name)
        return None

    return decide


def _asked(method: str, path: str) -> tuple[str, list[str]]:
    for methods, pattern, action in ACTIONS:
        if method in methods.split("|") and (match := re.fullmatch(pattern, path)):
            names = match.groupdict().get("names")
            return action, names.split(",") if names else []
    raise AssertionError(f"tests/rights.py does not know {method} {path}")


def _fits(action: str, granted: list[list[str]]) -> bool:
    return any(fnmatchcase(action, glob) for globs in granted for glob in globs)


def _forbidden(action: str, kind: str, privileges: dict[str, list[str]], *, on: str = "") -> Answer:
    able = [name for name, globs in privileges.items() if _fits(action, [globs])]
    where = f" on indices [{on}]" if on else ""
    reason = (
        f"action [{action}] is unauthorized for API key id [K1] of user [someone]{where}, this action is"
        f" granted by the {kind} privileges [{','.join([*able, 'all'])}]"
    )
    error = {"type": "security_exception", "reason": reason}
    return 403, json.dumps({"error": {"root_cause": [error], **error}, "status": 403}).encode()
