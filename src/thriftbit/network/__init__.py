"""The model's own computation, one layer at a time, in torch. Needs the extra: pip install thriftbit[torch]"""
