"""Pixels → what the model says of them, on a device."""
