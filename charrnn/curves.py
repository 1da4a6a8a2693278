"""Make a page of the losses of runs, from the .jsonl files of train.py."""

import sys

from charrnn.pages.loss_curves import curves_page
from charrnn.pages.page import write_page
from charrnn.pages.runs import join_seeds, name_runs, read_log
from charrnn.system.cli import Parser, command
from charrnn.system.console import say
from charrnn.system.files import check_output


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write the page."""
    p = Parser(__doc__)
    p.add_argument("logs", metavar="LOG", nargs="+", help="a .jsonl that train.py left")
    p.add_argument("--out", default="curves.html", metavar="FILE", help="the page")
    args = p.parse_args(argv)
    check_output(args.out, inputs=args.logs, special=True)
    runs = {path: read_log(path) for path in args.logs}
    for path, run in runs.items():
        if run.skipped:
            say(f"{path}: {run.skipped} lines cannot be read and are left out")
    write_page(args.out, curves_page(join_seeds(name_runs(runs))))


if __name__ == "__main__":
    sys.exit(main())
