"""One network finds its size while it trains. Needs torch and numpy; knows nothing of studies and dashboards."""

from sizer.architecture import Architecture, load, save
from sizer.attaching import attach
from sizer.batches import Loaders
from sizer.errors import DataError, InputError, SizerError, UnknownNameError, UnsupportedNetworkError
from sizer.history import Epoch, best_epoch, front
from sizer.net import Net
from sizer.training import Run, fit

__all__ = [
    "Architecture",
    "DataError",
    "Epoch",
    "InputError",
    "Loaders",
    "Net",
    "Run",
    "SizerError",
    "UnknownNameError",
    "UnsupportedNetworkError",
    "attach",
    "best_epoch",
    "fit",
    "front",
    "load",
    "save",
]
