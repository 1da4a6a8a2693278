"""Settings of the process that only work before torch is imported, so import this first."""

import os
import sys
from types import TracebackType

# two threads wait for each other many times a step; on a busy machine a bounded spin then costs
# half to four fifths of what endless spinning does, and on a quiet one nothing (benchmarks/log/)
if "OMP_WAIT_POLICY" not in os.environ:  # the user's own way to wait
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _interrupted(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, at)


# torch takes a second to load: Ctrl-C meanwhile is a line, not a traceback; only in our programs
if os.path.basename(sys.argv[0]) in ("train.py", "sample.py", "-m"):
    sys.excepthook = _interrupted
    # where stdin, stdout or stderr is closed, the next file opened would get its number, and
    # whatever libraries print there would go into that file
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
