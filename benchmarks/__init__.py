"""Scripts that each answer one question and print a table; README.md lists them and their
figures."""

import charrnn.before_torch  # noqa: F401, before torch, as in the programs
