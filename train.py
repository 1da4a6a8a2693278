"""Train a character-level LSTM on a text: ``python train.py --help`` explains every flag.

All of training is in this file, in the order in which it happens. What it calls is in the folders
of charrnn/: settings, batches and optimizers in training/, the text in text/, the LSTM in network/,
the files and the log of a run in run/.
"""

import charrnn.before_torch  # noqa: F401, before torch

# isort: split
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charrnn.network.checkpoint import check_saveable, load_checkpoint
from charrnn.network.device import (
    device_notes,
    keep_freed_memory,
    pick_device,
    pick_dtype,
    torch_defaults,
)
from charrnn.network.evaluation import choose_pieces, evaluate_all, evaluate_pieces
from charrnn.network.model import CharRNN, Hidden, copy_weights, detach, keep_rows, map_hidden
from charrnn.run.files import RunFiles
from charrnn.run.report import Reporter
from charrnn.system.cli import command
from charrnn.system.console import catch_signals
from charrnn.text.advice import advice
from charrnn.text.corpus import load_corpus
from charrnn.text.split import split_text
from charrnn.training.batches import Batches
from charrnn.training.budget import Budget, seconds_per_step
from charrnn.training.distributed import Distributed
from charrnn.training.flags import parse_args
from charrnn.training.optimizer import make_optimizers
from charrnn.training.settings import check_given, new_settings, resolve_settings, resume_settings
from charrnn.training.state import Progress, TrainState
from charrnn.writing.generation import default_prime, encode_prime

WARM_UP = 0.02  # of the run, in which the learning rate rises to its peak
DECAY = 0.6  # of the run, at its end, in which the learning rate falls to zero
LOSS_SCALE = 1024  # in float16, where small gradients would become 0 (Micikevicius et al. 2018)
READ_EVERY = 10  # steps between two reads of the loss, since each one waits for the device
MAX_BAD_STEPS = 20  # in a row, before the run goes back to its last saved state


class Trained(NamedTuple):
    """The result of ``train``."""

    model: CharRNN  # the best by held-out loss, in evaluation mode
    log: list[dict[str, Any]]  # the lines of the .jsonl file
    status: int  # 0, or 128 + its number if a signal ended the run; all is saved then, too


def schedule(done: float) -> float:
    """Return the share of the peak learning rate when this fraction of the run is done: a warm-up,
    constant, then linear to zero (Hagele et al. 2024, arXiv:2405.18392)."""
    return min(1.0, done / WARM_UP, (1 - done) / DECAY)


def train_step(
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    x: Tensor,
    y: Tensor,
    hidden: Hidden,
    clip: float,
    dtype: torch.dtype,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Hidden]:
    """Update the weights once from ids ``x``, ``y`` [B, T]. Return the loss in nats per character,
    whether the gradient was bad (not finite), and the new hidden state."""
    hidden = detach(hidden)  # the state is carried on, but gradients stop here: truncated BPTT
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        logits, hidden = model(x, hidden)
    log_p = logits.float().log_softmax(dim=1)
    loss = F.nll_loss(log_p, y.flatten())  # the cross-entropy
    # label smoothing: the loss that is minimized asks for a little probability of every character
    smoothed = torch.lerp(loss, -log_p.mean(), label_smoothing)

    model.zero_grad()
    scale = LOSS_SCALE if dtype == torch.float16 else 1
    (smoothed * scale).backward()
    if scale != 1:
        torch._foreach_div_([w.grad for w in model.parameters() if w.grad is not None], scale)
    # so that one steep region cannot throw the weights far away
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    # a gradient that is not finite must change nothing: an optimizer skips the step if its
    # found_inf is 1 (GradScaler sets it, too), on the device, so that nobody waits for the answer
    bad = ~norm.isfinite()
    for optimizer in optimizers:
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        optimizer.step()
    return loss.detach(), bad, map_hidden(lambda h: h.where(~bad, 0), hidden)


@torch_defaults()
def train(
    resume: str | os.PathLike | None = None,
    *,
    on_log: Callable[[dict[str, Any]], object] | None = None,
    quiet: bool = False,
    **given: Any,
) -> Trained:
    """Train a new model, or resume the run of a .resume file. ``given`` are settings by the names
    of their flags; None means the default. A process trains one model at a time.

    ``on_log`` is called with each new line of the log. With ``quiet`` only warnings are printed.
    Raises UserError before anything on disk is changed if a setting, the text or a file is not
    usable, and at the end if the last save failed.
    """
    flags = check_given({"resume": resume, **given})
    resume_path = flags.pop("resume", None)
    keep_freed_memory()
    dist = Distributed()  # a single process, unless torchrun started several
    files = RunFiles(flags.get("ckpt", "rnn.net"), resume_path, dist.is_main, on_log)
    with files.locked(), ExitStack() as stack:
        # settings and text
        saved = dist.from_main(files.load_resume) if resume_path else None
        init_from = flags.get("init_from")
        source = dist.from_main(lambda: load_checkpoint(init_from)) if init_from else None
        chosen = resume_settings(saved["settings"], flags) if saved else new_settings(flags, source)
        fingerprint = saved["fingerprint"] if saved else None  # which the text must have
        known = saved["files"] if saved else ()  # the files of the text, if it was a folder
        corpus = load_corpus(
            chosen["data"], chosen["min_count"], chosen["encoding"], fingerprint, known
        )
        caught = stack.enter_context(catch_signals())  # before this a signal just ends the program
        device = dist.place(pick_device(chosen["device"]))
        dtype = pick_dtype(chosen["dtype"], device)  # of the products; weights are float32
        # the main process decides for all, since each would measure a different speed
        step_time = cache(partial(seconds_per_step, len(corpus.vocabulary), device, dtype))
        on_accelerator = device.type != "cpu"
        settings = dist.from_main(
            lambda: resolve_settings(chosen, on_accelerator, len(corpus.ids), step_time)
        )
        tokens = saved["tokens"] if saved else corpus.vocabulary.tokens
        if source:  # its characters and those that are new to it
            tokens = tuple(sorted({*tokens, *source.unique_tokens}))
        train_ids, val_ids = split_text(
            corpus.encode_with(tokens),
            settings.val_frac,
            tokens,
            settings.val_split,
            settings.seed,
            corpus.file_ends,
        )
        held_out = corpus.held_out_files(settings.val_frac, settings.val_split, settings.seed)
        rows = dist.rows(settings.batch_size)  # of each batch that this process reads
        batches = Batches(
            train_ids.to(device),  # as a whole, since a step would wait for each copy
            settings.batch_size,
            settings.seq_length,
            seed=settings.seed,
            own_rows=rows,
            cold_starts=settings.cold_starts,
        )
        # without --minutes the time is only printed, so it may be less exact
        timed = step_time if settings.minutes else partial(step_time, at_least=0.1)
        seconds = dist.from_main(
            lambda: timed(
                settings.n_hidden,
                settings.n_layers,
                settings.cell,
                settings.batch_size,
                settings.seq_length,
            )
        )
        budget = Budget(settings, batches, len(val_ids), seconds)

        # model and optimizer
        torch.manual_seed(settings.seed)
        model = CharRNN(
            tokens,
            settings.n_hidden,
            settings.n_layers,
            settings.drop_prob,
            settings.cell,
            input_drop=settings.input_drop,
        ).to(device)
        check_saveable(model)  # raises UserError now for a changed model that could not be saved
        if source:
            copy_weights(source, model)
        prime = settings.prime or default_prime(model)
        encode_prime(model, prime)  # raises UserError for characters that the model does not know
        ddp_model = dist.wrap(model)  # the same weights; gradients are averaged over all processes
        optimizers = make_optimizers(model, settings, dtype)
        initial_hidden = model.init_hidden(rows.stop - rows.start)
        progress = Progress(budget.val_chars)  # plain numbers: step, seconds, best loss, ...
        state = TrainState(model, optimizers, initial_hidden, dist, progress)

        # files: once saved, the run can be resumed at any step
        files.describe(settings, corpus, tokens, held_out, saved)
        if saved:
            state.load_state_dict(saved["state"], f"--resume {resume_path}")
        notes = files.resume(state) if saved else files.begin()
        pieces = choose_pieces(train_ids, val_ids, len(tokens), progress.val_chars)
        speaks = dist.is_main and not quiet
        report = Reporter(speaks, settings, model, batches, val_ids, budget, progress)
        stack.callback(report.close)
        report.header(held_out, dtype)
        report.say(*device_notes(settings.device, device), *corpus.notes, *advice(corpus), *notes)
        files.save(state)
        if not dist.is_main:  # each process drops other units
            torch.manual_seed(settings.seed + dist.rank + progress.step)

        # the loop
        began = time.perf_counter() - progress.seconds
        smoothing = settings.label_smoothing
        signal = 0  # the one that ends the run, once all processes know of it
        model.train()
        while (done := budget.fraction_done(progress)) < 1 and not signal:
            x, y = (ids.to(device, torch.long) for ids in batches[progress.step])
            # some rows start from zeros, as every text that is generated does
            state.hidden = keep_rows(state.hidden, batches.carried(progress.step))
            share = schedule(done) if settings.decay else 1.0
            for group in (group for each in optimizers for group in each.param_groups):
                group["lr"] = group["peak_lr"] * share * progress.lr_scale
            with dist.together():
                loss, bad, state.hidden = train_step(
                    ddp_model, optimizers, x, y, state.hidden, settings.clip, dtype, smoothing
                )
            state.count(loss, bad)
            progress.seconds, signal = dist.agree(began, caught)

            if progress.step % READ_EVERY == 0:
                report.move_bar(loss.item(), done)
                if state.counters["bad_in_a_row"] >= MAX_BAD_STEPS:
                    report.say(files.go_back(state, settings.lr))
                    continue

            now = budget.fraction_done(progress)
            if budget.line_due(done, now):
                train_loss, val_loss = state.mean_loss(), None
                if budget.evaluation_due(done, now):
                    report.evaluating()
                    val_loss = dist.from_main(
                        lambda: evaluate_pieces(model, val_ids, pieces, progress.val_chars, dtype)
                    )
                    files.keep_if_best(model, val_loss, state)
                lr = settings.lr * share
                files.log.add_figures(progress, batches, lr, train_loss, val_loss)
                if val_loss is not None:
                    # reading this mean resets its counters, so it comes before the save
                    train_loss = state.mean_loss_since_evaluation()
                    files.save_on_the_way(state)
                    report.evaluation(train_loss, val_loss, prime, now)

        # the end: the best model is evaluated on all of the held-out text, in float32
        if math.isinf(progress.best):  # stopped before the first evaluation: save this model
            val_loss = evaluate_pieces(model, val_ids, pieces, progress.val_chars, dtype)
            files.save_model(model, val_loss, 0, progress.step)
        final = None
        if dist.is_main and not files.save_errors:
            model = load_checkpoint(files.net_path, device)
            if not signal:
                final = evaluate_all(model, val_ids, on_progress=report.last_evaluation())
                files.conclude(final.loss, len(val_ids), progress, batches)
        files.save(state)
        dist.close()
        files.require_saved()
        report.end(files, final)
    return Trained(model.eval(), files.log.readable(), 128 + signal if signal else 0)


@command
def main(argv: list[str] | None = None) -> int:
    """Train with the flags in ``argv``. Return the exit status."""
    return train(**parse_args(argv)).status


if __name__ == "__main__":
    sys.exit(main())
