"""DataLoader of an image stream, with its state in every checkpoint."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..data.images.streaming import ImageStream
from ..data.images.torch_datasets import collate
from ..errors import UsageError
from ..files.atomic import atomic_write_file
from .dataloader_signals import make_workers_signal_safe
from .messages import TrainingMessage


class StreamLoader:
    """Resumable loader of an infinite stream (torchdata's `StatefulDataLoader`).

    Args:
        stream: stream of this process.
        args: training arguments (workers, pinned memory, process index).

    Raises:
        UsageError: If torchdata is not installed.
    """

    def __init__(self, stream: ImageStream, batch_size: int, args: Any):
        try:
            from torchdata.stateful_dataloader import StatefulDataLoader
        except ImportError:
            raise UsageError(TrainingMessage.TORCHDATA_MISSING) from None
        self.file_name = f"stream-{args.process_index}.pt"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # torchdata 0.11 with torch 2.14
            loader = StatefulDataLoader(
                stream,
                batch_size,
                collate_fn=collate,
                num_workers=args.dataloader_num_workers,
                pin_memory=args.dataloader_pin_memory,
                prefetch_factor=args.dataloader_prefetch_factor,
                drop_last=True,
            )
        self.loader: Any = make_workers_signal_safe(loader)

    @property
    def dataloader(self) -> DataLoader:
        """The loader that the Trainer iterates over."""
        loader: DataLoader = self.loader
        return loader

    def save(self, checkpoint: Path) -> None:
        """Saves the state of every worker."""
        state = {"workers": self.loader.num_workers, "loader": self.loader.state_dict()}
        with atomic_write_file(checkpoint / self.file_name) as temporary:
            torch.save(state, temporary)

    def load(self, checkpoint: Path) -> None:
        """Restores the state of every worker.

        Raises:
            UsageError: If the checkpoint has no state for this process, or a different number of workers.
        """
        path = checkpoint / self.file_name
        if not path.is_file():
            raise UsageError(TrainingMessage.CHECKPOINT_WITHOUT_STREAM, path=checkpoint)
        state = torch.load(path, weights_only=True)
        saved, workers = state["workers"], self.loader.num_workers
        if saved != workers:
            raise UsageError(TrainingMessage.STREAM_WORKERS_DIFFER, path=checkpoint, saved=saved, workers=workers)
        self.loader.load_state_dict(state["loader"])
