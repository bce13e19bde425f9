"""Crawl a web site that is slow and fails at random, politely, and start again where it stopped.

    python examples/crawl_pages.py [URL] [--per-second 50] [--pages 60]

Without a URL it starts a site of its own on this machine, whose pages link to others, take their
time, and answer one request in four with an error. Pages are fetched side by side, but never more
than ``--per-second`` of them begin in a second, and a page that fails is tried again after growing
delays. What was fetched is on record, with how often it was tried.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import embedded_orch
from embedded_orch import flow, task
from embedded_orch.concurrency.sync import rate_limit
from embedded_orch.tasks import exponential_backoff

if TYPE_CHECKING:
    from collections.abc import Generator


@task(retries=8, retry_delay_seconds=exponential_backoff(0.01), retry_jitter_factor=1)
def fetch(url: str) -> list[str]:
    """The links of a page."""
    rate_limit("crawler", occupy=1)
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - the user's own address
        text = answer.read().decode()
    return [urljoin(url, link) for link in re.findall(r'href="([^"]+)"', text)]


@flow
def crawl(start: str, most: int) -> list[str]:
    """The addresses of the pages that can be reached, at most so many, in the order found."""
    found, level = [start], [start]
    while level:
        futures = [fetch.submit(url) for url in level]
        links = [link for future in futures for link in future.result()]
        level = [link for link in dict.fromkeys(links) if link not in found][: most - len(found)]
        found += level
    return found


class Site(BaseHTTPRequestHandler):
    """Pages /0, /1, ... that link to two others each; one answer in four is an error."""

    size = 60
    chance = random.Random(1)

    def do_GET(self) -> None:
        """Answer after a while, or fail."""
        time.sleep(self.chance.random() / 50)
        if self.chance.random() < 0.25:
            self.send_error(503)
            return
        number = int(self.path.strip("/"))
        others = [2 * number + 1, 2 * number + 2]
        links = "".join(f'<a href="/{each}">{each}</a>' for each in others if each < self.size)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"<html>{links}</html>".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its base's name
        """Say nothing: the crawl tells what it does."""


@contextmanager
def own_site(size: int) -> Generator[str]:
    """A site on this machine, while the block lasts."""
    Site.size = size
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/0"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(start: str, *, per_second: float, pages: int, db: str) -> list[str]:
    """Crawl, and say what it took."""
    with embedded_orch.open(db) as orch:
        orch.concurrency_limits.create(
            "crawler", limit=max(1, int(per_second)), slot_decay_per_second=per_second
        )
        found = crawl(start, pages)
        attempts = sum(each.run_count for each in orch.task_runs.find(task_key=fetch.task_key))
    print(f"{len(found)} pages in {attempts} attempts")
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Crawl a site that fails at random.")
    parser.add_argument("url", nargs="?")
    parser.add_argument("--per-second", type=float, default=50)
    parser.add_argument("--pages", type=int, default=60)
    parser.add_argument("--db", default=":memory:")
    arguments = parser.parse_args()
    options = {"per_second": arguments.per_second, "pages": arguments.pages, "db": arguments.db}
    if arguments.url:
        run(arguments.url, **options)
    else:
        with own_site(arguments.pages) as url:
            run(url, **options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
