"""Which device computes, and in which precision."""

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import torch
from torch import nn

from charrnn.errors import UserError

DTYPES = ("auto", "float32", "bfloat16", "float16")
# before, dropout was left out of nn.LSTM's backward pass on MPS, evaluation read what training had
# built, and the fused optimizer took steps that were not finite
MPS_SINCE = (2, 14)


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Make new tensors float32 and on the CPU unless told otherwise, whatever defaults the caller
    has set; also a decorator."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    try:
        # the context costs time in every call of torch, so only where it is needed
        with nullcontext() if device.type == "cpu" else torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def mps_problem() -> str:
    """Why an Apple GPU that is there is not used; empty where it can be, or there is none."""
    version = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
    if not torch.backends.mps.is_available() or version >= MPS_SINCE:
        return ""
    needed = ".".join(map(str, MPS_SINCE))
    return (
        f"torch {torch.__version__} trains an LSTM wrongly on an Apple GPU; install torch {needed} "
        "or newer"
    )


def device_notes(name: str, device: torch.device) -> list[str]:
    """What to say of the choice of ``device`` by this name: why it is not the best one there."""
    problem = mps_problem() if name == "auto" and device.type == "cpu" else ""
    return [f"on the CPU: {problem} to use it"] if problem else []


def pick_device(name: str) -> torch.device:
    """``auto``: the first there of cuda, mps, cpu. Raises UserError for one that is not there."""
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
    """The precision of the training step's products; weights and the optimizer stay float32.

    ``auto``: bfloat16 on a CPU that has it in hardware, float16 on CUDA from capability 7.0 (what
    cuDNN's LSTM computes in under autocast, whichever dtype it is asked for), else float32. Raises
    UserError for what the device cannot do.
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
    """The precision that beats float32 there, if any does."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
        return torch.float16
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # torch >= 2.11
        has = torch.cpu.get_capabilities()
        if has.get("avx512_bf16") or has.get("amx_bf16"):
            return torch.bfloat16
    return torch.float32


def can_train(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a training step can be made there in this precision: found out by making one."""
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
    """Have malloc keep what is freed: a training step frees hundreds of MB, which the kernel would
    take back and zero again for the next one. For glibc (mallopt(3)); others are left alone."""
    with suppress(AttributeError, OSError, TypeError):  # no mallopt there
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: everything on the heap
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never shrink it


def has_persistent_lstm(device: torch.device) -> bool:
    """Whether PyTorch has cuDNN keep the weights of one LSTM layer on the chip there, in float16
    (``use_persist_device_heuristics`` in its aten/src/ATen/native/cudnn/RNN.cpp)."""
    if device.type != "cuda" or torch.version.hip:
        return False
    chip = torch.cuda.get_device_properties(device)
    if chip.major == 7:
        return chip.minor != 5
    return chip.major > 7 and chip.minor != 6 and chip.multi_processor_count >= 98
