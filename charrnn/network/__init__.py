"""Ids -> logits -> loss: the device, the model, its file, and its evaluation."""
