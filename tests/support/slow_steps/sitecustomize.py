"""Delays every training step of `MaeFinetuner` by SLOW_STEP seconds, if this folder is on PYTHONPATH.

The delay ends when the file SLOW_UNTIL exists, if it is set. Tests use it to interrupt a training."""

import importlib.abc
import importlib.util
import os
import sys
import time


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "hf_mae.training.finetuner":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            step = module.MaeFinetuner.training_step

            def slow(self, *args, **kwargs):
                if not os.path.exists(os.environ.get("SLOW_UNTIL", "")):
                    time.sleep(float(os.environ["SLOW_STEP"]))
                return step(self, *args, **kwargs)

            module.MaeFinetuner.training_step = slow

        spec.loader.exec_module = exec_module
        return spec


if "SLOW_STEP" in os.environ:
    sys.meta_path.insert(0, _Finder())
