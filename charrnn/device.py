"""Which device computes, and in which precision."""

import ctypes
from contextlib import suppress

import torch

from charrnn.errors import UserError

DTYPES = ("auto", "float32", "bfloat16")


def pick_device(name: str) -> torch.device:
    """``auto``: the first there of cuda, mps, cpu. Raises UserError for one that is not there."""
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind in has if has[kind]))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in has:
        raise UserError(f"--device {name}: unknown; use auto, cpu, cuda, cuda:N or mps")
    if not has[device.type]:
        raise UserError(f"--device {name}: no {device.type.upper()} GPU here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"--device {name}: GPUs here are cuda:0 to cuda:{count - 1}")
    return torch.device("cpu") if device.type == "cpu" else device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware there, so that they beat float32's."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of the training step's products; weights and the optimizer stay float32."""
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    return getattr(torch, name)


def keep_freed_memory() -> None:
    """Have malloc keep what is freed: a training step frees hundreds of MB, which the kernel would
    take back and zero again for the next one. For glibc (mallopt(3)); others are left alone."""
    with suppress(AttributeError, OSError, TypeError):  # no mallopt there
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: everything on the heap
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never shrink it
