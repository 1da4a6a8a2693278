"""Save and load models. A file is written whole or not at all; loading runs no code from it, and
checks it before anything is built."""

import math
import os
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charrnn.errors import UserError
from charrnn.network.device import torch_defaults
from charrnn.network.model import CELLS, CharRNN, eval_mode
from charrnn.system.console import brief, shell_name
from charrnn.system.files import atomic_file, reason, require_regular

ALLOWED_GLOBALS = re.compile(  # to which torch.save refers for tensors in dicts
    r"collections OrderedDict|torch\._utils _rebuild_(parameter|tensor_v2)|torch \w+Storage"
)
MOST_PICKLED = 1 << 22  # bytes of plain values; one byte may become an object of 64


def save_dict(path: str | Path, contents: dict[str, Any]) -> None:
    """Save a dict of plain values and tensors for ``load_dict``.

    Raises OSError, and UserError for numbers that are not finite, since loading refuses them.
    """
    if not all(bool(each.isfinite().all()) for each in _tensors(contents)):
        raise UserError(
            f"{path}: not saved, since its weights are no longer finite numbers; lower --lr or "
            "--clip"
        )
    with atomic_file(path) as file:
        try:
            torch.save(contents, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch hides that the disk is full
                raise error.__context__ from None
            raise OSError(f"{path}: {error}") from None


def _tensors(contents: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested dicts, lists and tuples."""
    if isinstance(contents, Tensor):
        yield contents
    elif isinstance(contents, (dict, list, tuple)):
        for each in contents.values() if isinstance(contents, dict) else contents:
            yield from _tensors(each)


def load_dict(path: str | Path) -> dict[str, Any]:
    """Return the dict in a file, with its tensors on the CPU. Runs no code from the file.

    Raises UserError if the file is missing, not a regular file, damaged, or contains anything but
    plain values and tensors.
    """
    require_regular(path, "a model")
    try:
        _check_archive(path)
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {reason(error)}") from None
    except Exception:  # a damaged pickle can raise almost anything
        raise UserError(f"{path}: not a checkpoint, or a damaged one; train.py makes one") from None
    if not isinstance(contents, dict):
        raise UserError(f"{path}: not a checkpoint: it contains no dict; train.py makes one")
    return contents


def _check_archive(path: str | Path) -> None:
    """Check that a file unpacks to no more than its size and calls only ``ALLOWED_GLOBALS``.

    torch.load(weights_only=True) runs no code, but it knows functions that allocate any amount of
    memory. Raises ValueError.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > os.path.getsize(path):
            raise ValueError("compressed")
        for entry in (each for each in entries if each.filename.endswith(".pkl")):
            if entry.file_size > MOST_PICKLED:
                raise ValueError("too long")
            for opcode, name, _ in pickletools.genops(archive.read(entry)):
                refers = opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL")
                if refers and not ALLOWED_GLOBALS.fullmatch(str(name)):
                    raise ValueError(f"calls {name}")


def check_like(found: Any, expected: Any, where: str) -> None:
    """Check that a loaded value has the structure of what this run would save: the same keys,
    types, shapes and dtypes, and finite numbers.

    Fused optimizers do not check sizes: with a wrong tensor they would access memory out of bounds.
    Raises UserError that names the first place that differs.
    """
    same = type(found) is type(expected)
    if same and isinstance(expected, (list, tuple)):
        found, expected = dict(enumerate(found)), dict(enumerate(expected))
    if isinstance(expected, Tensor):
        same = _is_stored(found) and not found.requires_grad
        same = same and (found.shape, found.dtype) == (expected.shape, expected.dtype)
    elif same and isinstance(expected, dict):
        same = found.keys() == expected.keys()
    elif same and isinstance(expected, float):
        same = math.isfinite(found)
    if not same:
        raise UserError(f"{where}: not what this run would have saved")
    if isinstance(expected, dict):
        for key, value in expected.items():
            check_like(found[key], value, f"{where}, {key}")


def _is_stored(value: Any) -> bool:
    """Return whether a value is a tensor of finite numbers, each of which is in the file: with a
    stride of 0, one number could claim to be a billion."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_complex()
        and value.is_contiguous()
        and bool(value.float().isfinite().all())
    )


def check_tokens(tokens: Any, where: str) -> tuple[str, ...]:
    """Return ``tokens`` from a file as a vocabulary. Raises UserError if they cannot be one."""
    good = (
        isinstance(tokens, (tuple, list))
        and all(isinstance(token, str) and len(token) == 1 for token in tokens)
        and len(set(tokens)) == len(tokens) > 0
    )
    if not good:
        raise UserError(f"{where}: tokens is not a list of distinct single characters")
    return tuple(tokens)


def save_checkpoint(path: str | Path, model: CharRNN, **extra: Any) -> None:
    """Save a model as a dict: the notebook's four keys, ``drop_prob``, ``cell`` and ``extra``.

    The notebook's own code can load it. An existing file is replaced in one step. Raises OSError,
    and UserError for weights that are not finite.
    """
    save_dict(path, contents_of(model) | extra)


def contents_of(model: CharRNN) -> dict[str, Any]:
    """Return the dict that is saved for a model."""
    return {
        "n_hidden": model.n_hidden,
        "n_layers": model.n_layers,
        "state_dict": {name: weight.cpu() for name, weight in model.state_dict().items()},
        "tokens": model.unique_tokens,
        "drop_prob": model.drop_prob,
        "cell": model.cell,
    }


@torch.no_grad()
def check_saveable(model: CharRNN) -> None:
    """Check that a model, whose code may have been changed, computes the same after loading.

    Raises UserError if it does not.
    """
    device = model.fc.weight.device
    ids = torch.arange(8, device=device)[None] % len(model.unique_tokens)
    try:
        loaded = build_model(contents_of(model), "the model").to(device)
        with eval_mode(model), eval_mode(loaded):
            expected, found = (m(ids, m.init_hidden(1))[0] for m in (model, loaded))
        if not torch.allclose(found, expected, rtol=1e-2, atol=1e-2):
            raise UserError("it would compute something else")
    except (UserError, AttributeError, TypeError, RuntimeError) as error:
        raise UserError(
            f"the model of charrnn/network/model.py could not be loaded after training: {error}; "
            "build it from n_hidden, n_layers, drop_prob, cell and the characters alone, and make "
            "each tensor in it a parameter or a buffer"
        ) from None


@torch_defaults()
def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> CharRNN:
    """Load a model, saved by this program or by the notebook, in evaluation mode (no dropout).

    Raises UserError if the file contains no such model.
    """
    return build_model(load_dict(path), path).to(device).eval()


def build_model(checkpoint: dict[str, Any], path: str | Path) -> CharRNN:
    """Build the model of a checkpoint dict. It is checked before memory of its size is allocated.

    Raises UserError that names ``path`` and the first problem.
    """
    if "state" in checkpoint and "state_dict" not in checkpoint:
        raise UserError(
            f"{path}: not a model but the state of a run: resume it with python train.py --resume "
            f"{shell_name(path)}; its model is beside it and ends in .net"
        )

    def require(condition: bool, problem: str) -> None:
        if not condition:
            raise UserError(f"{path}: not a usable checkpoint: {problem}; train.py makes one")

    for key in ("n_hidden", "n_layers", "state_dict", "tokens"):
        require(key in checkpoint, f"it has no {key!r}")
    weights, n_hidden, n_layers = (checkpoint[k] for k in ("state_dict", "n_hidden", "n_layers"))
    for key, size in (("n_hidden", n_hidden), ("n_layers", n_layers)):
        require(type(size) is int and size > 0, f"{key} is {brief(size)}, not a positive number")
    tokens = check_tokens(checkpoint["tokens"], f"{path}: not a usable checkpoint")
    require(isinstance(weights, dict), "state_dict is not a dict")
    for name, weight in weights.items():
        problem = f"{brief(name)} contains values that are not finite numbers"
        require(_is_stored(weight), problem)
    # sizes may be made up: each layer must have weights, and each unit a number
    require(n_layers <= len(weights), f"state_dict has no weights of {n_layers} layers")
    largest = max(weight.numel() for weight in weights.values())
    require(n_hidden <= largest, f"state_dict has no weights of {n_hidden} units")
    cell = checkpoint.get("cell", "lstm")
    require(isinstance(cell, str) and cell in CELLS, f"cell is none of {', '.join(CELLS)}")
    drop_prob = checkpoint.get("drop_prob", 0.5)
    require(type(drop_prob) is float and 0 <= drop_prob < 1, "drop_prob is not in [0, 1)")

    with torch.device("meta"):  # random weights would be replaced at once
        model = CharRNN(tokens, n_hidden, n_layers, drop_prob, cell)
    expected = model.state_dict()  # of the model as the code builds it now
    for name in (*expected, *weights):
        found, wanted = (
            tuple(state[name].shape) if name in state else "none" for state in (weights, expected)
        )
        require(found == wanted, f"{brief(name)} has shape {found}, not {wanted} as in the code")
        same_kind = weights[name].is_floating_point() == expected[name].is_floating_point()
        require(same_kind, f"{brief(name)} is {weights[name].dtype}")
    model.load_state_dict({k: w.to(expected[k].dtype) for k, w in weights.items()}, assign=True)
    return model
