"""Tiny models: more than one thread only waits, above all beside other processes."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))  # for train.py and sample.py
