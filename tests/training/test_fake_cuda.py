"""A whole run on a GPU that is not there: tensors without numbers that know their device. Whatever
mixes devices, or reads a number within a step and so waits for the GPU, fails on every machine."""

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import run_in
from torch import Tensor

import train
from charrnn.network import checkpoint
from charrnn.network.model import CharRNN
from charrnn.run import files as run_files
from charrnn.run import report
from charrnn.text.corpus import Corpus
from charrnn.training import state as train_state
from charrnn.training.batches import Batches
from charrnn.training.distributed import Distributed
from charrnn.writing import generation

if torch.cuda.is_available():
    pytest.skip("there is CUDA here", allow_module_level=True)

# at its first use autograd starts a thread for each device that is there, and then works in no
# forked process: so it is used before a device is made up
torch.ones(1, requires_grad=True).backward()

try:
    from torch._subclasses import fake_tensor
    from torch.utils import _python_dispatch as python_dispatch
    from torch.utils._pytree import tree_map_only

    unfaked = fake_tensor.unset_fake_temporarily
    FakeTensorMode, DispatchMode = fake_tensor.FakeTensorMode, python_dispatch.TorchDispatchMode
    amp = torch.cuda.amp.common.amp_definitely_not_available
    with FakeTensorMode():
        torch.zeros(1, device="cuda")
except (AttributeError, ImportError, AssertionError, RuntimeError):
    if "CI" in os.environ:  # nothing else checks the CUDA path on a machine without a GPU
        raise
    pytest.skip("torch has no such fake tensors any more", allow_module_level=True)
aten = torch.ops.aten
train_step, sample = train.train_step, report.sample
SHORT = {"epochs": 1, "batch_size": 16, "seq_length": 8, "val_frac": 0.02, "muon_scale": 1.0}


class Watch(DispatchMode):
    """Numbers that the host reads are 0 or 0.5, and none may be read within a step."""

    within_step, steps, reads = False, 0, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        reads = function is aten._local_scalar_dense.default and args[0].is_cuda
        if function is aten._to_copy.default and args[0].is_cuda:
            reads = kwargs.get("device") not in (None, args[0].device)
        assert not (reads and self.within_step), f"{function} waits for the GPU within a step"
        self.reads += reads
        fake = args and isinstance(args[0], fake_tensor.FakeTensor)
        if fake and function is aten._local_scalar_dense.default:
            return 0.5 if args[0].is_floating_point() else 0
        if fake and function is aten.exponential_.default:
            kwargs.pop("generator", None)  # fake kernels know none
        return function(*args, **kwargs)


class Generator(torch.Generator):
    """On the CPU, wherever it is said to be."""

    def __new__(cls, device: torch.device | str = "cpu") -> "Generator":
        return super().__new__(cls, "cpu")


def backward(loss: Tensor) -> None:
    """Gradients without numbers for every weight that the loss comes from: autograd's own threads
    want the device itself."""
    assert loss.is_cuda
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [before for before, _ in node.next_functions]
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)


def without_fakes(function: Callable) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        with unfaked():
            return function(*args, **kwargs)

    return call


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Watch]:
    """Everything within runs on a GPU, by itself ``cuda:0``; files are in memory."""
    files: dict[str, dict] = {}

    def save(path: Path, contents: dict) -> None:
        files[str(path)] = contents
        Path(path).touch()

    def load(path: Path) -> dict:
        with unfaked():  # as torch.load(map_location="cpu") gives them
            return tree_map_only(
                fake_tensor.FakeTensor,
                lambda t: torch.ones(t.shape, dtype=t.dtype),
                files[str(path)],
            )

    watch = Watch()

    def getitem(batches: Batches, step: int) -> tuple[Tensor, Tensor]:
        watch.within_step = True
        watch.steps += 1
        return real_getitem(batches, step)

    def prepare(batches: Batches, epoch: int) -> None:
        ids = batches.ids
        with unfaked():  # a random order has numbers
            batches.ids = torch.empty(len(ids))
            real_prepare(batches, epoch)
        batches.ids, batches._carried = ids, batches._carried.to(ids.device)

    def agree(*args: Any) -> tuple[float, int]:
        watch.within_step = False
        return real_agree(*args)

    def captured(step: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            watch.within_step = True
            step()
            watch.within_step = False

        return replay

    real_getitem, real_prepare = Batches.__getitem__, Batches._prepare
    real_agree = without_fakes(Distributed.agree)
    put = monkeypatch.setattr
    put(Batches, "__getitem__", getitem)
    put(Batches, "_prepare", prepare)
    put(Distributed, "agree", agree)
    put(train, "pick_device", lambda name: torch.device("cuda"))
    put(report, "sample", lambda model, size, *args, **more: sample(model, 40, *args, **more))
    put(report, "unlikeness", lambda *_: 0.0)
    put(train, "seconds_per_step", lambda *_, **__: 1e-3)
    put(CharRNN, "is_faster_by_layer", False)
    put(train, "CharRNN", without_fakes(train.CharRNN))
    put(train, "load_corpus", without_fakes(train.load_corpus))
    put(Corpus, "encode_with", without_fakes(Corpus.encode_with))
    for module in (checkpoint, run_files):
        put(module, "save_dict", save)
        put(module, "load_dict", load)
        put(module, "build_model", without_fakes(module.build_model))
    for name in ("check_like", "check_moments"):
        put(train_state, name, without_fakes(getattr(train_state, name)))
    put(generation, "_captured", captured)
    put(generation, "BEFORE_GRAPH", 0)
    put(generation, "has_fast_step", lambda model: True)  # both would compare numbers
    put(train, "check_saveable", lambda model: None)
    put(torch, "Generator", Generator)
    put(torch.cuda, "device", lambda device: nullcontext())
    put(torch.cuda, "get_rng_state", lambda device: torch.zeros(16, dtype=torch.uint8))
    put(torch.cuda, "set_rng_state", lambda state, device: None)
    put(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    put(torch.backends.cudnn, "enabled", False)
    put(Tensor, "backward", backward)
    with FakeTensorMode(allow_non_fake_inputs=True), watch:
        yield watch


@pytest.mark.parametrize(
    ("dtype", "by_layer"),
    [(torch.float32, False), (torch.float16, False), (torch.float16, True)],
)
def test_a_run_mixes_no_devices_and_waits_for_none(
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    dtype: torch.dtype,
    by_layer: bool,
) -> None:
    monkeypatch.setattr(train, "pick_dtype", lambda name, device: dtype)
    monkeypatch.setattr(CharRNN, "is_faster_by_layer", by_layer)
    trained = run_in(tmp_path, **SHORT)
    assert trained.status == 0 and watch.steps == 13 and watch.reads > 50
    assert all(weight.is_cuda for weight in trained.model.parameters())
    assert train.train(resume=str(tmp_path / "rnn.resume"), epochs=2).status == 0
    assert watch.steps == 26


def index_on_cpu(*args: Any) -> Any:
    model, optimizer, x, *rest = args
    return train_step(model, optimizer, x.cpu(), *rest)


def a_read(*args: Any) -> Any:
    loss, bad, hidden = train_step(*args)
    return loss, bad if loss.item() else ~bad, hidden


def a_branch(*args: Any) -> Any:
    loss, bad, hidden = train_step(*args)
    return loss, ~bad if bad else bad, hidden


def state_on_cpu(*args: Any) -> Any:
    *others, hidden, clip, dtype, smoothing = args
    return train_step(*others, tuple(torch.zeros(h.shape) for h in hidden), clip, dtype, smoothing)


@pytest.mark.parametrize("mistake", [index_on_cpu, a_read, a_branch, state_on_cpu])
def test_planted_mistakes_are_found(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mistake: Callable
) -> None:
    monkeypatch.setattr(train, "train_step", mistake)
    with pytest.raises((RuntimeError, AssertionError), match=r"waits for the GPU|same device"):
        run_in(tmp_path, **SHORT, dtype="float32")
    assert watch.steps == 1
