"""One script per question; each prints figures measured side by side in one run."""

import charrnn.start  # noqa: F401, before torch, as in the programs
