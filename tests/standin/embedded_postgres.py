"""For root: `get_server` as in the wheel, of a server that changes nothing outside of its folders."""

from __future__ import annotations

import atexit
from typing import Any

from tests.stores.servers import Postgres


class Server:
    def __init__(self) -> None:
        self._server = Postgres()
        atexit.register(self.cleanup)

    def get_uri(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._server.port}/postgres"

    def cleanup(self) -> None:
        atexit.unregister(self.cleanup)
        self._server.stop()


def get_server(data: Any, cleanup_mode: str = "stop") -> Server:
    return Server()
