"""Quantized models: what their names mean, and which ones there are."""
