"""`LAYOUTS`: the families of checkpoints that can be read, and those that are rejected by name.

A new family is one module with a `Layout`, and its entry here. Help texts, docs/converting.md and messages are read
from it. Importing this package imports neither torch nor transformers.
"""

from hf_mae.registry import Registry

from ..checkpoint import Layout
from .beit import BEIT
from .mae import MAE
from .mmpretrain import MMPRETRAIN
from .stock import STOCK
from .unsupported import UNSUPPORTED

LAYOUTS: Registry[Layout] = Registry()
for layout in (MAE, MMPRETRAIN, BEIT, STOCK, *UNSUPPORTED):
    LAYOUTS.add(layout)


def supported_layouts() -> list[Layout]:
    """Returns the layouts that can be converted."""
    return [layout for layout in LAYOUTS.values() if not layout.unsupported]
