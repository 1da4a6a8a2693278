"""Train a character-level LSTM on a text: ``python train.py --help`` explains every flag.

All of training is in this file, in the order in which it happens. What it calls is a room each in
charrnn/: flags and presets in flags.py and settings.py, the text in corpus.py and data.py, the LSTM
in model.py, what is kept on disk in run_files.py.
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
from charrnn.training.optimizer import make_optimizers, step_unless
from charrnn.training.settings import check_given, new_settings, resolve_settings, resume_settings
from charrnn.training.state import TrainState
from charrnn.writing.generation import default_prime, encode_prime

WARM_UP = 0.02  # of the run, over which the learning rate rises to its peak
DECAY = 0.6  # of the run, at its end, over which it falls to zero
LOSS_SCALE = 1024  # in float16, where small gradients would become 0 (Micikevicius et al. 2018)
READ_EVERY = 10  # steps between two reads of the loss: each one waits for the device
MAX_BAD_STEPS = 20  # in a row, before the run goes back to where it was last saved


class Trained(NamedTuple):
    """What ``train`` returns."""

    model: CharRNN  # the best by held-out loss, in evaluation mode
    log: list[dict[str, Any]]  # the lines of the .jsonl file
    status: int  # 0 at the end; 128 + its number where a signal ended it, with all saved


def schedule(done: float) -> float:
    """Share of the peak learning rate when this fraction of the run is done: warm-up, constant,
    then linear to zero (Hagele et al. 2024, arXiv:2405.18392)."""
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
    """One update from ids ``x``, ``y`` [B, T]: (loss in nats per character, bad or not, state)."""
    hidden = detach(hidden)  # the state is kept, but gradients stop here: truncated BPTT
    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        logits, hidden = model(x, hidden)
    logits, targets = logits.float(), y.flatten()
    loss = F.cross_entropy(logits, targets)
    # the loss to learn from leaves a little to every character, so that none is ever ruled out
    smoothed = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)

    model.zero_grad()
    scale = LOSS_SCALE if dtype == torch.float16 else 1
    (smoothed * scale).backward()
    if scale != 1:
        for weight in model.parameters():
            weight.grad /= scale
    # so that one steep region cannot throw the weights far away
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    bad = ~norm.isfinite()  # a gradient that is not finite must change nothing
    step_unless(bad, optimizers)
    return loss.detach(), bad, map_hidden(lambda h: h.where(~bad, 0), hidden)


@torch_defaults()
def train(
    resume: str | os.PathLike | None = None,
    *,
    on_log: Callable[[dict[str, Any]], object] | None = None,
    quiet: bool = False,
    **given: Any,
) -> Trained:
    """Train from the start, or on from a .resume file; ``given``: settings by their flags' names,
    where None means the default. A process trains one model at a time.

    ``on_log`` is called with each line of the log when it is made; ``quiet``: print nothing but
    warnings. Raises UserError for what cannot work, before anything on disk is changed, and where
    the disk refuses the last save.
    """
    given = check_given({"resume": resume, **given})
    resume = given.pop("resume", None)
    keep_freed_memory()
    dist = Distributed()  # a process alone, unless torchrun started several
    files = RunFiles(given.get("ckpt", "rnn.net"), resume, dist.is_main, on_log)
    report = Reporter(dist.is_main and not quiet)
    with files.locked(), ExitStack() as stack, report:
        # settings and text
        saved = dist.from_main(files.load_resume) if resume else None
        path = given.get("init_from")
        source = dist.from_main(lambda: load_checkpoint(path)) if path else None
        given = resume_settings(saved["settings"], given) if saved else new_settings(given, source)
        fingerprint = saved["fingerprint"] if saved else None  # of the text that it must be
        known = saved["files"] if saved else ()  # which files of a folder it is in
        corpus = load_corpus(
            given["data"], given["min_count"], given["encoding"], fingerprint, known
        )
        caught = stack.enter_context(catch_signals())  # until here a signal simply ends the program
        device = dist.place(pick_device(given["device"]))
        dtype = pick_dtype(given["dtype"], device)  # of the products; weights are float32
        # one process decides for all, since each would measure another speed
        step_time = cache(partial(seconds_per_step, len(corpus.vocabulary), device, dtype))
        on_accelerator = device.type != "cpu"
        settings = dist.from_main(
            lambda: resolve_settings(given, on_accelerator, len(corpus.ids), step_time)
        )
        tokens = saved["tokens"] if saved else corpus.vocabulary.tokens
        if source:  # a model to start from, and characters that are new to it
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
        rows = dist.rows(settings.batch_size)  # of each batch, that this process reads
        batches = Batches(
            train_ids.to(device),  # as a whole: a step would wait for each copy
            settings.batch_size,
            settings.seq_length,
            seed=settings.seed,
            own_rows=rows,
            cold_starts=settings.cold_starts,
        )
        # by epochs the time is only printed, so that a short look is enough
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
        check_saveable(model)  # raises now for a model that was changed so that it cannot be
        if source:
            copy_weights(source, model)
        prime = settings.prime or default_prime(model)
        encode_prime(model, prime)  # raises now for characters that the model does not know
        ddp_model = dist.wrap(model)  # the same weights; gradients averaged over all processes
        optimizers = make_optimizers(model, settings, dtype)
        initial_hidden = model.init_hidden(rows.stop - rows.start)
        state = TrainState(model, optimizers, initial_hidden, dist, rows, budget.val_chars)
        progress = state.progress  # plain numbers: step, seconds, best loss, ...

        # files: once saved, the run can be resumed at any step
        files.describe(settings, corpus, tokens, held_out, saved)
        if saved:
            state.load_state_dict(saved["state"], f"--resume {resume}")
        notes = files.resume(state) if saved else files.begin()
        pieces = choose_pieces(train_ids, val_ids, len(tokens), progress.val_chars)
        report.header(settings, model, batches, val_ids, held_out, dtype, budget, progress)
        report.say(*device_notes(settings.device, device), *corpus.notes, *advice(corpus), *notes)
        files.save(state)
        if not dist.is_main:
            torch.manual_seed(settings.seed + dist.rank + progress.step)  # each drops other units

        # the loop
        began = time.perf_counter() - progress.seconds
        smoothing = settings.label_smoothing
        signal = 0  # that ends the run, once all processes know of it
        model.train()
        while (done := budget.fraction_done(progress)) < 1 and not signal:
            x, y = (ids.to(device, torch.long) for ids in batches[progress.step])
            # some rows start from zeros, as every prime does; else the model knows no such start
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
                report.progress(loss.item(), progress, batches, done)
                if state.counters["bad_in_a_row"] >= MAX_BAD_STEPS:
                    report.say(files.go_back(state, settings.lr))
                    continue

            now = budget.fraction_done(progress)
            if budget.line_due(done, now):
                train_loss, val_loss = state.mean_loss(), None
                if evaluating := budget.evaluation_due(done, now):
                    report.evaluating()
                    val_loss = dist.from_main(
                        lambda: evaluate_pieces(model, val_ids, pieces, progress.val_chars, dtype)
                    )
                    files.keep_if_best(model, val_loss, state)
                lr = settings.lr * share
                files.log.add_figures(progress, batches, lr, train_loss, val_loss)
                if evaluating:
                    # reading this mean resets its counters, so it comes before the save
                    train_loss = state.mean_loss_since_evaluation()
                    files.save_on_the_way(state)
                    report.evaluation(
                        model, progress, batches, len(val_ids), train_loss, val_loss, prime, now
                    )

        # the end: the figure is that of the best model, on all of the held-out text, in float32
        if math.isinf(progress.best):  # stopped before the first evaluation: a model all the same
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
        report.end(files, settings, final, progress)
    return Trained(model.eval(), files.log.readable(), 128 + signal if signal else 0)


@command
def main(argv: list[str] | None = None) -> int:
    """Train as the command line says. Returns the exit status."""
    return train(**parse_args(argv)).status


if __name__ == "__main__":
    sys.exit(main())
