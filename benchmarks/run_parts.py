"""Print where the time of a run of train.py goes, from the command to its end.

    python -m benchmarks.run_parts --epochs 15 --device cuda

All flags are those of train.py. "start-up" is all time before the first step. "imports" is the part
of it until train.py and torch have been imported.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

BEGAN = "RUN_PARTS_BEGAN"  # environment variable: when the process was started, in seconds


def main() -> int:
    """Run train.py in a process of its own, or be that process; return its exit status."""
    if BEGAN not in os.environ:
        command = [sys.executable, "-m", "benchmarks.run_parts", *sys.argv[1:]]
        return subprocess.run(command, env=os.environ | {BEGAN: str(time.time())}).returncode
    began = float(os.environ[BEGAN])
    import train  # this import is part of what is measured

    seconds = dict.fromkeys(("imports", "start-up", "evaluations", "samples", "saves", "steps"), 0)
    seconds["imports"] = time.time() - began
    counts = dict.fromkeys(seconds, 0)
    inside: list[str] = []  # a save within a save is counted once

    def timed(name: str, function: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            if inside:
                return function(*args, **options)
            if train.torch.cuda.is_available():
                train.torch.cuda.synchronize()  # what was asked for before is not this part's
            inside.append(name)
            at = time.time()
            try:
                return function(*args, **options)
            finally:
                inside.pop()
                if counts["steps"]:
                    seconds[name] += time.time() - at
                    counts[name] += 1

        return call

    train_step = train.train_step

    def step(*args: Any) -> Any:
        if not counts["steps"]:
            seconds["start-up"] = time.time() - began
        counts["steps"] += 1
        return train_step(*args)

    parts = {
        "evaluations": [(train, "evaluate_pieces"), (train, "evaluate_all")],
        "samples": [(train.Reporter, "evaluation")],
        "saves": [(train.RunFiles, name) for name in ("save", "save_model", "conclude")],
    }
    with ExitStack() as stack:
        stack.enter_context(patch.object(train, "train_step", step))
        for name, places in parts.items():
            for owner, attribute in places:
                function = timed(name, getattr(owner, attribute))
                stack.enter_context(patch.object(owner, attribute, function))
        status = train.main(sys.argv[1:])
    total = time.time() - began
    others = ("start-up", "evaluations", "samples", "saves")
    seconds["steps"] = total - sum(seconds[name] for name in others)
    print("\n| part | seconds | how often |\n| --- | --- | --- |")
    for name, spent in (*seconds.items(), ("from the command to its end", total)):
        print(f"| {name} | {spent:.2f} | {counts.get(name) or ''} |")
    return status


if __name__ == "__main__":
    sys.exit(main())
