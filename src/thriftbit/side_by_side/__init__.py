"""Several precisions of one model, answering side by side on a page; and whether a person can tell them apart."""
