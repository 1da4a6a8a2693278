"""Choose the device and the precision."""

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import torch
from torch import nn

from charrnn.errors import UserError

DTYPES = ("auto", "float32", "bfloat16", "float16")
# in older versions nn.LSTM on MPS leaves dropout out of its backward pass, evaluation uses what
# training cached, and the fused optimizer applies steps that are not finite
MPS_SINCE = (2, 14)


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Make float32 and the CPU the defaults for new tensors, whatever the caller has set. It is a
    decorator, too."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    try:
        # the context costs time in every call of torch, so only where it is needed
        with nullcontext() if device.type == "cpu" else torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def mps_problem() -> str:
    """Return why an Apple GPU cannot be used; "" if it can, or if there is none."""
    version = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
    if not torch.backends.mps.is_available() or version >= MPS_SINCE:
        return ""
    needed = ".".join(map(str, MPS_SINCE))
    return (
        f"torch {torch.__version__} trains an LSTM wrongly on an Apple GPU; install torch {needed} "
        "or newer"
    )


def device_notes(name: str, device: torch.device) -> list[str]:
    """Return sentences on why ``device``, chosen by this name, is not the best one there."""
    problem = mps_problem() if name == "auto" and device.type == "cpu" else ""
    return [f"on the CPU: {problem} to use it"] if problem else []


def pick_device(name: str) -> torch.device:
    """Return the device of this name; ``auto`` is the first available of cuda, mps and cpu. Raises
    UserError for a device that is not available."""
    mps = torch.backends.mps.is_available() and not mps_problem()
    has = {"cuda": torch.cuda.is_available(), "mps": mps, "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind in has if has[kind]))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in has:
        raise UserError(f"--device {name}: unknown; use auto, cpu, cuda, cuda:N or mps")
    if device.type == "mps" and (problem := mps_problem()):
        raise UserError(f"--device mps: {problem}, or use --device cpu")
    if not has[device.type]:
        raise UserError(f"--device {name}: no {device.type.upper()} GPU here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"--device {name}: GPUs here are cuda:0 to cuda:{count - 1}")
    return torch.device("cpu") if device.type == "cpu" else device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of a training step's products; weights and optimizer stay float32.

    ``auto`` is bfloat16 on a CPU that has it in hardware, float16 on CUDA from capability 7.0
    (cuDNN's LSTM computes in it under autocast, whichever dtype is set), and float32 elsewhere.
    Raises UserError for a precision in which the device cannot train.
    """
    if name == "auto":
        fast = fast_dtype(device)
        return fast if can_train(device, fast) else torch.float32
    dtype = getattr(torch, name)
    if dtype == torch.bfloat16 and device.type == "cuda":
        raise UserError(
            "--dtype bfloat16: cuDNN's LSTM has none under autocast; use float16 or auto"
        )
    if not can_train(device, dtype):
        raise UserError(
            f"--dtype {name}: this {device.type} trains no LSTM in it; use float32 or auto"
        )
    return dtype


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return the precision that is faster than float32 on this device, or float32."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
        return torch.float16
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # torch >= 2.11
        has = torch.cpu.get_capabilities()
        if has.get("avx512_bf16") or has.get("amx_bf16"):
            return torch.bfloat16
    return torch.float32


def can_train(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the device can train in this precision, by making a small step."""
    if dtype == torch.float32:
        return True
    try:
        lstm = nn.LSTM(8, 8).to(device)
        with torch.autocast(device.type, dtype):
            output, _ = lstm(torch.zeros(2, 1, 8, device=device))
        output.float().sum().backward()
        return True
    except RuntimeError:  # oneDNN has no LSTM of this kind for this processor
        return False


def keep_freed_memory() -> None:
    """Make malloc keep freed memory. A training step frees hundreds of MB, which the kernel would
    zero again for the next step. Only glibc can do that (mallopt(3))."""
    with suppress(AttributeError, OSError, TypeError):  # no mallopt there
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: everything on the heap
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never shrink it


def has_persistent_lstm(device: torch.device) -> bool:
    """Return whether cuDNN keeps the weights of one LSTM layer on the chip here, in float16
    (``use_persist_device_heuristics`` in PyTorch's aten/src/ATen/native/cudnn/RNN.cpp)."""
    if device.type != "cuda" or torch.version.hip:
        return False
    chip = torch.cuda.get_device_properties(device)
    if chip.major == 7:
        return chip.minor != 5
    return chip.major > 7 and chip.minor != 6 and chip.multi_processor_count >= 98
