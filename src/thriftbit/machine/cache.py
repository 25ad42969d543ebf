"""Where things are kept between runs: `thriftbit.folders`, under the name that this room's files use."""

from thriftbit.folders import cache_folder, data_folder

__all__ = ["cache_folder", "data_folder"]
