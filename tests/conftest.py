"""Tiny models: more than one thread only waits, above all beside other processes."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
