"""Bytes on disk: how GGUF files are laid out, read and written. Knows layout, not policy."""
