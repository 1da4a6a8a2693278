"""One script per question; each prints figures measured side by side in one run."""

import charrnn.before_torch  # noqa: F401, before torch, as in the programs
