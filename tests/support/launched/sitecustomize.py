"""Changes programs that tests launch, if this folder and `tests` are on PYTHONPATH: their figures are empty.

SLOW_STEP delays every training step of `MaeFinetuner` by this number of seconds, until the file SLOW_UNTIL exists (if
it is set). Tests use it to interrupt a training.
"""

import importlib.abc
import importlib.util
import os
import sys
import time


def use_stub_figures(module):
    from support.stub_figures import use_stub_figures

    use_stub_figures()


def delay_steps(module):
    step = module.MaeFinetuner.training_step

    def slow(self, *args, **kwargs):
        if not os.path.exists(os.environ.get("SLOW_UNTIL", "")):
            time.sleep(float(os.environ["SLOW_STEP"]))
        return step(self, *args, **kwargs)

    module.MaeFinetuner.training_step = slow


PATCHES = {"hf_mae.reporting.figures.style": use_stub_figures}
if "SLOW_STEP" in os.environ:
    PATCHES["hf_mae.training.finetuner"] = delay_steps


class Finder(importlib.abc.MetaPathFinder):
    """Calls a patch when its module has been imported."""

    def find_spec(self, name, path, target=None):
        patch = PATCHES.pop(name, None)
        if patch is None:
            return None
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
