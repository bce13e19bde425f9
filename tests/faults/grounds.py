"""Where each attempt of a fault test gets a database of its own, as a preparation has left it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Protocol


class Ground(Protocol):
    """Where each attempt gets a database of its own, as the preparation left it."""

    def template(self) -> str: ...
    def fresh(self) -> str: ...
    def clear(self, url: str) -> None: ...


class FileGround:
    """Files, with what lies beside them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0

    def template(self) -> str:
        (self._folder / "template").mkdir()
        return str(self._folder / "template" / "orch.db")

    def fresh(self) -> str:
        self._made += 1
        made = self._folder / str(self._made)
        shutil.copytree(self._folder / "template", made)
        return str(made / "orch.db")

    def clear(self, url: str) -> None:
        shutil.rmtree(Path(url).parent)


class ServerGround:
    """Databases of a server, made from a template; ``url`` is that of a superuser."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._names = f"kill_{os.getpid()}"
        self._made = 0

    def template(self) -> str:
        self._run(f"create database {self._names}")
        return self._named(self._names)

    def fresh(self) -> str:
        self._made += 1
        name = f"{self._names}_{self._made}"
        self._run(f"create database {name} template {self._names}")
        return self._named(name)

    def clear(self, url: str) -> None:
        name = url.split("/")[3].split("?", maxsplit=1)[0]
        self._run(f"drop database {name} with (force)")

    def _named(self, name: str) -> str:
        return self._url.replace("/postgres?", f"/{name}?", 1)

    def _run(self, statement: str) -> None:
        import psycopg

        for _ in range(100):
            try:
                with psycopg.connect(self._url, autocommit=True) as server:
                    server.execute(statement.encode())
            except psycopg.errors.ObjectInUse:
                # The server has not noticed yet that its last client died.
                time.sleep(0.02)
            else:
                return
        raise TimeoutError(f"the template stays in use: {statement}")
