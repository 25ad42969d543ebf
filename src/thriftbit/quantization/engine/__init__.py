"""Where tasks are computed: processes on this computer, each with one thread, inside a given memory."""
