"""Devices, precision, memory."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from charrnn.device import pick_device, pick_dtype
from charrnn.errors import UserError

ROOT = Path(__file__).parent.parent
TWICE = """
import resource, torch
from charrnn.device import keep_freed_memory
{call}
def faults():
    torch.ones(1 << 24)  # 64 MiB, 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = [faults() for _ in range(20)][-1]  # by then the heap has room for it
print(faults() - before)
"""


def test_names_of_devices_and_types() -> None:
    assert pick_device("cpu:0") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    assert pick_dtype("float32", torch.device("cpu")) == torch.float32
    assert pick_dtype("auto", torch.device("mps")) == torch.float32
    for name in ("gpu", "cuda:99", "meta", ""):
        with pytest.raises(UserError, match="--device"):
            pick_device(name)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_not_asked_for_again() -> None:
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("no mallopt here")
    faults = [
        int(subprocess.check_output([sys.executable, "-c", TWICE.format(call=call)], cwd=ROOT))
        for call in ("", "keep_freed_memory()")
    ]
    assert faults[1] < 100 and faults[1] < faults[0]
