"""One file per model family. Each defines `ARCHITECTURE`; nothing else has to be told of it."""
