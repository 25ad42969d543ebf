"""Where weights come from: checkpoints, the Hub, GGUF files; what they are called, and how text becomes tokens."""
