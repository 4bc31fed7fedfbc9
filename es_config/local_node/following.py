"""Follow the local node: it may come back on another port while a program runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from elastic_transport import ConnectionError, NodeConfig, Urllib3HttpNode

from es_config.local_node.process_file import find_running, process_file


class LocalHttpNode(Urllib3HttpNode):
    """Connects the client with the local node of `home`, wherever its process file says that it listens.

    When the file has changed, the next request reads it. Without a node a request fails, also if another
    program has taken the port.
    """

    home: ClassVar[Path]

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._read_at: int | None = None
        """when the file that was read last had changed, in nanoseconds"""

    def perform_request(self, *arguments: Any, **options: Any) -> Any:
        """Send a request to the node's present address."""
        try:
            changed = process_file(self.home).stat().st_mtime_ns
        except OSError as error:
            raise ConnectionError("The local node is down") from error
        if changed != self._read_at:
            node = find_running(self.home)
            if node is None or not node.ready:
                raise ConnectionError("The local node is not ready")
            port = urlsplit(node.url).port or 0
            if port != self.pool.port:
                self.pool = Urllib3HttpNode(replace(self.config, port=port)).pool
            self._read_at = changed
        return super().perform_request(*arguments, **options)


def following(glimpse_home: Path) -> type[LocalHttpNode]:
    """Return the class of a connection that follows the node of one GLIMPSE_HOME."""
    return type("LocalHttpNode", (LocalHttpNode,), {"home": glimpse_home})
