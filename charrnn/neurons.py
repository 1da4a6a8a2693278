"""Find which units of a model follow quotes, lines, words, and make a page as in Karpathy et al.
2015, arXiv:1506.02078."""

import sys

from charrnn.network.loaded import load_model
from charrnn.pages.inputs import add_reading_flags, read_text
from charrnn.pages.page import write_page
from charrnn.pages.units import READ, find_units, states, untrained_states
from charrnn.pages.units_page import units_page
from charrnn.system.cli import Parser, command
from charrnn.system.files import check_output


@command
def main(argv: list[str] | None = None) -> None:
    """Parse the command line, print the best units, and write the page."""
    p = Parser(__doc__)
    p.add_argument("--ckpt", metavar="FILE", default="rnn.net", help="the model")
    add_reading_flags(p)
    p.add_argument("--out", metavar="HTML", default="neurons.html", help="the page")
    args = p.parse_args(argv)
    check_output(args.out, inputs=[args.ckpt, *(args.data or [])], special=True)
    model = load_model(args.ckpt, args.device)
    text = read_text(args, [model], args.out)
    ids = text.ids[0][: READ + 1]
    units = states(model.net, ids)
    characters = model.net.vocabulary.decode(ids[:-1])
    findings = find_units(units, untrained_states(model.net, ids), characters)
    for finding in findings:
        r = f"{finding.r[finding.best[0]]:+.3f}"
        best = f"unit {finding.best[0]} ({r});" if finding.found else f"no unit; best {r},"
        others = f"shifted {finding.shifted:.3f}, untrained {finding.untrained:.3f}"
        print(f"{finding.name}: {best} {others}")
    write_page(args.out, units_page(model, text, characters, findings, units))


if __name__ == "__main__":
    sys.exit(main())
