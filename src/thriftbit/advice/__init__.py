"""Which precision fits: a machine, a task, a speed wanted and a loss accepted."""
