"""What the training loop calls: settings, batches, optimizers, the plan of a run."""
