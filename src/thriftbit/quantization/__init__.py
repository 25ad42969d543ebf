"""From a model and a budget to a file: presets, plans, importance data and the loop that does the work."""
