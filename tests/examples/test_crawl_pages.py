"""A crawl finds every page of a site that fails at random."""

from __future__ import annotations

import re

from tests.programs import run_example


def test_every_page_of_a_site_that_fails_at_random_is_found() -> None:
    ended = run_example("crawl_pages.py", "--pages", 30, "--per-second", 400)

    assert ended.returncode == 0, ended.stderr
    pages, attempts = map(int, re.findall(r"\d+", ended.stdout.splitlines()[-1]))
    assert pages == 30
    assert attempts > 30
