"""Devices, precision, memory."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import (
    ROOT,
    at_step,
    contents,
    evaluations,
    interrupt,
    read_log,
    run_in,
    start,
    write_text,
)

import charrnn.network.device as device_module
import train
from charrnn.errors import UserError
from charrnn.network.checkpoint import load_dict
from charrnn.network.device import can_train, device_notes, pick_device, pick_dtype
from charrnn.training.flags import make_parser

TWICE = """
import resource, torch
from charrnn.network.device import keep_freed_memory
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


@pytest.mark.parametrize(
    ("version", "kind"), [("2.13.1", "cpu"), ("2.14.0", "mps"), ("2.9", "cpu")]
)
def test_an_apple_gpu_is_used_from_torch_2_14_on(
    monkeypatch: pytest.MonkeyPatch, version: str, kind: str
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device = pick_device("auto")
    assert device.type == kind
    if kind == "mps":
        assert pick_device("mps").type == "mps" and not device_notes("auto", device)
        return
    (note,) = device_notes("auto", device)  # says why, once
    assert note.startswith(f"on the CPU: torch {version} trains an LSTM wrongly on an Apple GPU")
    assert not device_notes("cpu", device)  # nobody asked for another
    with pytest.raises(UserError, match=r"--device mps: torch .* or use --device cpu"):
        pick_device("mps")


def test_a_run_says_why_an_apple_gpu_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device_module, "mps_problem", lambda: "it is too old; wait")
    assert run_in(tmp_path, device="auto", epochs=1).status == 0
    assert capsys.readouterr().out.count("on the CPU: it is too old; wait to use it\n") == 1


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 0), "float16"), ((7, 5), "float16"), ((9, 0), "float16"), ((6, 1), "float32")],
)
def test_precision_on_cuda(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(device_module, "can_train", lambda device, dtype: True)
    assert pick_dtype("auto", torch.device("cuda")) == getattr(torch, dtype)
    assert pick_dtype("float16", torch.device("cuda", 1)) == torch.float16
    with pytest.raises(UserError, match=r"--dtype bfloat16: .* use float16 or auto"):
        pick_dtype("bfloat16", torch.device("cuda"))


def test_the_help_names_the_precisions() -> None:
    text = " ".join(make_parser().format_help().split())
    assert "--dtype {auto,float32,bfloat16,float16}" in text and "float16 on CUDA" in text


WITHOUT = {"ONEDNN_MAX_CPU_ISA": "AVX2"}  # a CPU that has no bfloat16
CAN = "import torch; from charrnn.network.device import can_train; "
CAN += "print(can_train(torch.device('cpu'), torch.bfloat16))"


@pytest.fixture(scope="module")
def without() -> dict[str, str]:
    """An environment in which this CPU trains no LSTM in bfloat16."""
    env = os.environ | WITHOUT | {"PYTHONPATH": str(ROOT)}
    if "False" not in subprocess.check_output([sys.executable, "-c", CAN], env=env, text=True):
        pytest.skip("this CPU has bfloat16 always")
    return env


needs_bfloat16 = pytest.mark.skipif(
    not can_train(torch.device("cpu"), torch.bfloat16), reason="this CPU has no bfloat16"
)


def test_a_precision_that_the_cpu_has_not_is_refused_at_once(
    tmp_path: Path, without: dict[str, str]
) -> None:
    write_text(tmp_path)
    before = contents(tmp_path)
    flags = ["--data", "a.txt", "--epochs", "1", "--n-hidden", "8"]
    for dtype in ("bfloat16", "float16"):
        process = start(tmp_path, *flags, "--dtype", dtype, env=without, popen=subprocess.Popen)
        out, _ = process.communicate()
        assert process.returncode == 2 and out.count("\n") == 1, out
        assert f"--dtype {dtype}: this cpu trains no LSTM in it; use float32 or auto" in out
        assert contents(tmp_path) == before
    process = start(tmp_path, *flags, env=without, popen=subprocess.Popen)
    assert ", float32: LSTM 8 x" in process.communicate()[0] and process.returncode == 0


@needs_bfloat16
def test_a_run_goes_on_in_the_precision_of_the_machine(
    tmp_path: Path, without: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "fast_dtype", lambda device: torch.bfloat16)
    at_step(monkeypatch, 20, interrupt)
    assert run_in(tmp_path, dtype="auto").status == 130
    process = start(tmp_path, "--resume", "rnn.resume", env=without, popen=subprocess.Popen)
    out, _ = process.communicate()
    assert process.returncode == 0 and ", float32: LSTM 12 x 2" in out
    lines = evaluations(tmp_path)
    assert lines[-1]["val_loss"] < lines[0]["val_loss"]


@needs_bfloat16
def test_a_run_in_bfloat16_stopped_anywhere_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run_in(whole, dtype="bfloat16").status == 0
    with monkeypatch.context() as patch:
        at_step(patch, 77, interrupt)
        assert run_in(stopped, dtype="bfloat16").status == 130
    saved = load_dict(stopped / "rnn.resume")["state"]
    h, c = saved["hidden"]
    assert h.dtype == c.dtype == torch.float32
    assert torch.equal(h, h.bfloat16().float())  # which it was in
    torch.manual_seed(99)
    assert train.train(resume=str(stopped / "rnn.resume")).status == 0
    assert (whole / "rnn.net").read_bytes() == (stopped / "rnn.net").read_bytes()
    assert read_log(whole) == read_log(stopped)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_not_asked_for_again() -> None:
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("no mallopt here")
    faults = [
        int(subprocess.check_output([sys.executable, "-c", TWICE.format(call=call)], cwd=ROOT))
        for call in ("", "keep_freed_memory()")
    ]
    assert faults[1] < 100 and faults[1] < faults[0]
