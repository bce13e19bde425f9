"""A proxy in front of a Postgres server, which knows where messages begin and end.

So it can do to a connection what networks do, at a chosen statement: cut it before the statement
arrives, in the middle of it, after the server has done it and before the answer arrives, in the
middle of the answer; or go silent there, taking every byte and passing on none, while both ends
believe that the connection stands.

The messages are those of https://www.postgresql.org/docs/current/protocol-message-formats.html: a
letter and a length, but for the first one of a connection, which has no letter.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple, Self
from urllib.parse import parse_qs, quote, urlsplit

# Query, Sync and Flush, after which an answer is waited for; Password and Terminate.
_ENDS_OF_GROUPS = {b"Q", b"S", b"H", b"p", b"X"}
_SSL_REQUEST, _GSS_REQUEST, _CANCEL_REQUEST = 80877103, 80877104, 80877102


class Where(Enum):
    """At which moment of a statement."""

    BEFORE = "before it arrives"
    WITHIN = "in the middle of it"
    AFTER = "before its answer arrives"
    WITHIN_ANSWER = "in the middle of its answer"


class How(Enum):
    """What happens to the connection then."""

    CUT = "cut"
    SILENT = "silent"
    """Both ends believe that it stands."""
    CALLED = "left to a function"
    """Which gets the process id of the server's session; then the statement is passed on."""


class Fault(NamedTuple):
    """One thing that goes wrong, once.

    Attributes:
        is_meant: whether a statement is meant, by its number among all and its text.
        where: at which moment of it.
        how: what happens.
        call: the function, if it is left to one.
    """

    is_meant: Callable[[int, str], bool]
    where: Where
    how: How = How.CUT
    call: Callable[[int], object] = int


def at_statement(number: int, where: Where, how: How = How.CUT) -> Fault:
    """A fault at a statement by its number, from 0."""
    return Fault(lambda found, text: found == number, where, how)


def calling_at(number: int, call: Callable[[int], object]) -> Fault:
    """A function to be called before a statement is passed on."""
    return Fault(lambda found, text: found == number, Where.BEFORE, How.CALLED, call)


def at_text(text: str, where: Where, how: How = How.CUT, *, nth: int = 0) -> Fault:
    """A fault at the nth statement that contains a text, whatever the case."""
    seen = iter(range(1_000_000))

    def is_meant(number: int, statement: str) -> bool:
        return text.lower() in statement.lower() and next(seen) == nth

    return Fault(is_meant, where, how)


class Message(NamedTuple):
    """One message of either side; the first one of a connection has no kind."""

    kind: bytes
    body: bytes

    @property
    def bytes(self) -> bytes:
        return self.kind + struct.pack("!I", len(self.body) + 4) + self.body


class _Ended(Exception):
    """The other end has closed, or is to be closed."""


class PostgresProxy:
    """Listens on a port of 127.0.0.1 and passes on to one server.

    Args:
        server_url: of a database, by its Unix socket and without a password.
        fault: what goes wrong, or nothing.
        delay_seconds: how long each group of the server's answers is on its way.
        backends: as a pooler of transactions does, give each transaction another one of so many
            sessions of the server; 0 for a session of its own for each connection.
    """

    def __init__(
        self,
        server_url: str,
        *,
        fault: Fault | None = None,
        delay_seconds: float = 0.0,
        backends: int = 0,
    ) -> None:
        parts = urlsplit(server_url)
        place = parse_qs(parts.query)
        self._server = f"{place['host'][0]}/.s.PGSQL.{place['port'][0]}"
        self._target = f"{quote(parts.username or 'postgres')}@127.0.0.1:{{port}}{parts.path}"
        self.fault = fault
        self.delay_seconds = delay_seconds
        self.statements: list[str] = []
        self.connections = 0
        self.is_refusing = False
        self.has_struck = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._pool = Backends(self, backends) if backends else None
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, name="postgres proxy", daemon=True).start()

    @property
    def url(self) -> str:
        """Of the same database, by way of here."""
        port = self._listener.getsockname()[1]
        return f"postgresql://{self._target.format(port=port)}?sslmode=disable"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut_all()

    def cut_all(self) -> None:
        """Cut every connection at once."""
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            close(each)

    def to_server(self) -> socket.socket:
        """A new connection to the server."""
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(self._server)
        except OSError as error:
            made.close()
            raise _Ended from error
        return self.keep(made)

    def keep(self, made: socket.socket) -> socket.socket:
        """Have a socket closed at the end."""
        with self._lock:
            self._sockets.add(made)
        return made

    def begins(self, text: str) -> Fault | None:
        """A statement is on its way: the fault that is meant for it, which is then used up."""
        with self._lock:
            number = len(self.statements)
            self.statements.append(text)
            fault = self.fault
            if fault is None or not fault.is_meant(number, text):
                return None
            self.fault = None
        self.has_struck.set()
        return fault

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_refusing:
                close(client)
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self.keep(client)
            serve = _serve_alone if self._pool is None else self._pool.serve
            threading.Thread(target=_until_ended, args=(serve, self, client), daemon=True).start()


def _until_ended(
    serve: Callable[[PostgresProxy, socket.socket], None],
    proxy: PostgresProxy,
    client: socket.socket,
) -> None:
    with contextlib.suppress(_Ended, OSError):
        serve(proxy, client)
    close(client)


# -- a session of its own for each connection ------------------------------------------------------


def _serve_alone(proxy: PostgresProxy, client: socket.socket) -> None:
    start = read_start(client)
    server = proxy.to_server()
    server.sendall(start.bytes)
    if is_cancellation(start):
        close(server)
        return
    _Passage(proxy, client, server).run()


class _Passage:
    """One connection and its session, each of which has a thread that listens to it."""

    def __init__(self, proxy: PostgresProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._texts = Texts()
        # Set by the thread that hears the client before the server hears the statement.
        self._fault: Fault | None = None
        self._is_silent = False
        self._server_pid = 0

    def run(self) -> None:
        answering = threading.Thread(target=self._answer, daemon=True)
        answering.start()
        # What leads up to a statement and what ends it travel with it.
        group, fault = b"", None
        try:
            for message in messages_from(self._client):
                text = self._texts.of_statement(message)
                fault = fault or (None if text is None else self._proxy.begins(text))
                group += message.bytes
                if message.kind in _ENDS_OF_GROUPS:
                    self._pass_on(group, fault)
                    group, fault = b"", None
        finally:
            if not self._is_silent:
                # Of a connection that is silent the server hears nothing, not even its end.
                close(self._server)

    def _pass_on(self, group: bytes, fault: Fault | None) -> None:
        if self._is_silent:
            return
        if fault is not None and fault.how is How.CALLED:
            fault.call(self._server_pid)
            fault = None
        if fault is None:
            self._server.sendall(group)
        elif fault.where is Where.BEFORE:
            self._strike(fault)
        elif fault.where is Where.WITHIN:
            self._server.sendall(half(group))
            self._strike(fault)
        else:
            self._fault = fault
            self._server.sendall(group)

    def _answer(self) -> None:
        with contextlib.suppress(_Ended, OSError):
            for message in messages_from(self._server):
                if message.kind == b"Z" and self._proxy.delay_seconds:
                    time.sleep(self._proxy.delay_seconds)
                elif message.kind == b"K":
                    (self._server_pid,) = struct.unpack("!I", message.body[:4])
                self._pass_back(message)
        if not self._is_silent:
            close(self._client)

    def _pass_back(self, message: Message) -> None:
        fault = self._fault
        if self._is_silent:
            return
        if fault is None:
            self._client.sendall(message.bytes)
        elif fault.where is Where.AFTER:
            # It is done once the server is ready for another one.
            if message.kind == b"Z":
                self._strike(fault)
        elif message.kind == b"C":
            self._client.sendall(half(message.bytes))
            self._strike(fault)
        else:
            self._client.sendall(message.bytes)

    def _strike(self, fault: Fault) -> None:
        if fault.how is How.SILENT:
            self._is_silent = True
            return
        close(self._client)
        close(self._server)


# -- a few sessions for all connections ------------------------------------------------------------


class Backends:
    """Sessions of the server that are handed out for one transaction each, the oldest first.

    Args:
        proxy: that they belong to.
        count: how many there are.
    """

    def __init__(self, proxy: PostgresProxy, count: int) -> None:
        self._proxy = proxy
        self._count = count
        self._free: list[socket.socket] = []
        self._greeting = b""
        self._changed = threading.Condition()
        self._made = 0

    def serve(self, proxy: PostgresProxy, client: socket.socket) -> None:
        """Serve one connection until it ends."""
        start = read_start(client)
        if is_cancellation(start):
            return
        self._fill(start)
        client.sendall(self._greeting)
        backend: socket.socket | None = None
        group: list[Message] = []
        texts = Texts()
        try:
            for message in messages_from(client):
                group.append(message)
                if (text := texts.of_statement(message)) is not None:
                    proxy.begins(text)
                if message.kind not in (b"Q", b"S"):
                    continue
                backend = backend or self._take()
                backend.sendall(b"".join(each.bytes for each in group))
                group.clear()
                if self._relay(backend, client) == b"I":
                    self._give_back(backend)
                    backend = None
        finally:
            if backend is not None:
                # In the middle of a transaction, which ends with it.
                close(backend)
                with self._changed:
                    self._made -= 1

    def _fill(self, start: Message) -> None:
        with self._changed:
            while self._made < self._count:
                made = self._proxy.to_server()
                made.sendall(start.bytes)
                greeting = b""
                for message in messages_from(made):
                    greeting += message.bytes
                    if message.kind == b"Z":
                        break
                self._greeting = greeting
                self._free.append(made)
                self._made += 1
                self._changed.notify()

    def _take(self) -> socket.socket:
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            return self._free.pop(0)

    def _give_back(self, backend: socket.socket) -> None:
        with self._changed:
            self._free.append(backend)
            self._changed.notify()

    def _relay(self, backend: socket.socket, client: socket.socket) -> bytes:
        """Pass an answer back, to its end; the state of the transaction after it."""
        for message in messages_from(backend):
            client.sendall(message.bytes)
            if message.kind == b"Z":
                return message.body
        raise _Ended


# -- messages --------------------------------------------------------------------------------------


class Texts:
    """What the statements of one connection say, also those that are prepared."""

    def __init__(self) -> None:
        self._prepared: dict[bytes, str] = {}
        self._bound: dict[bytes, str] = {}

    def of_statement(self, message: Message) -> str | None:
        """What a message has the server do; None for one that only leads up to it."""
        if message.kind == b"Q":
            return message.body.rstrip(b"\0").decode()
        if message.kind == b"P":
            name, text_bytes, *_ = message.body.split(b"\0", 2)
            self._prepared[name] = text_bytes.decode()
        elif message.kind == b"B":
            portal, name, *_ = message.body.split(b"\0", 2)
            self._bound[portal] = self._prepared.get(name, "")
        elif message.kind == b"E":
            return self._bound.get(message.body.split(b"\0", 1)[0], "")
        return None


def read_start(client: socket.socket) -> Message:
    """The first message of a connection, after it was told that nothing here is encrypted."""
    while True:
        (length,) = struct.unpack("!I", _exactly(client, 4))
        message = Message(b"", _exactly(client, length - 4))
        if _code(message) not in (_SSL_REQUEST, _GSS_REQUEST):
            return message
        client.sendall(b"N")


def is_cancellation(start: Message) -> bool:
    """Whether a connection was made to cancel what another one does."""
    return _code(start) == _CANCEL_REQUEST


def messages_from(source: socket.socket) -> Iterator[Message]:
    """All further messages, until the other end closes."""
    while True:
        kind, length = struct.unpack("!cI", _exactly(source, 5))
        yield Message(kind, _exactly(source, length - 4))


def half(message: bytes) -> bytes:
    """So much of a message that one cannot tell what it says."""
    return message[: max(1, len(message) // 2)]


def close(ended: socket.socket) -> None:
    """Close it now, also when another thread is reading from it."""
    with contextlib.suppress(OSError):
        ended.shutdown(socket.SHUT_RDWR)
    ended.close()


def _code(start: Message) -> int:
    return int(struct.unpack("!I", start.body[:4])[0])


def _exactly(source: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = source.recv(count - len(parts))
        if not part:
            raise _Ended
        parts += part
    return bytes(parts)
