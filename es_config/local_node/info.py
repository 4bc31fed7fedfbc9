"""`GET /` on the local node: the published jars leave it out, and clients ask for it first."""

from __future__ import annotations

from typing import Any

from es_config.local_node.rest import RestRoutes


def register(node: Any) -> None:
    """Answer `GET /` and `HEAD /` on `node` as Elasticsearch does."""

    def info(*_: Any) -> tuple[int, Any]:
        return 200, node_info(node)

    routes = RestRoutes(node, workers=1)
    for method in ("GET", "HEAD"):
        routes.add(method, "/", info)


def node_info(node: Any) -> dict[str, Any]:
    """Return the name, cluster and versions of a running node, in the shape of Elasticsearch's answer."""
    from jpype import JClass

    state = node.injector().getInstance(JClass("org.elasticsearch.cluster.service.ClusterService")).state()
    return {
        "name": str(node.settings().get("node.name")),
        "cluster_name": str(state.getClusterName().value()),
        "cluster_uuid": str(state.metadata().clusterUUID()),
        "version": _version(),
        "tagline": "You Know, for Search",
    }


def _version() -> dict[str, Any]:
    from jpype import JClass

    build = JClass("org.elasticsearch.Build").current()
    return {
        "number": str(build.qualifiedVersion()),
        "build_flavor": str(build.flavor()),
        "build_type": str(build.type().displayName()),
        "build_hash": str(build.hash()),
        "build_date": str(build.date()),
        "build_snapshot": bool(build.isSnapshot()),
        "lucene_version": str(JClass("org.elasticsearch.index.IndexVersion").current().luceneVersion()),
        "minimum_wire_compatibility_version": str(build.minWireCompatVersion()),
        "minimum_index_compatibility_version": str(build.minIndexCompatVersion()),
    }
