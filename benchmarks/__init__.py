"""One script per question; each prints ratios measured side by side in one run."""
