"""Tiny models: more than one thread only waits, above all beside other processes."""

import faulthandler
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))  # for train.py and sample.py

STDERR = pytest.StashKey[int]()  # as it is outside of the tests, which have theirs captured
LONGEST_TEST = 300  # seconds; the slow ones wait for processes that have limits of their own


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STDERR] = os.dup(2)


@pytest.fixture(autouse=True)
def _ends_in_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that hangs ends the run with the places where its threads are."""
    limit = LONGEST_TEST * (3 if request.node.get_closest_marker("slow") else 1)
    stderr = request.config.stash[STDERR]
    faulthandler.dump_traceback_later(limit, exit=True, file=stderr)
    yield
    faulthandler.cancel_dump_traceback_later()
