"""What quantization lost and gained, as rows: accuracy, tasks, speed, memory, energy, and the store that keeps them."""
