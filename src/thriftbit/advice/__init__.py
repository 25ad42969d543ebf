"""Which precision of a model suits a computer, a task, a wanted speed and an accepted loss."""
