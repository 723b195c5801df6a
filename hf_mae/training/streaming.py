"""The loader of a stream, whose place is kept in every checkpoint."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..data.streaming import ImageStream
from ..data.torch_datasets import collate
from ..errors import UsageError
from ..files.atomic import atomic_write_file
from .dataloader_signals import make_workers_signal_safe


class StreamLoader:
    """Batches of a stream without an end (torchdata's `StatefulDataLoader`), which go on where a checkpoint was.

    Args:
        stream: of this process.
        batch_size: images of a batch.
        args: of the Trainer: number of workers, pinned memory, and which process this is.

    Raises:
        UsageError: torchdata is not installed.
    """

    def __init__(self, stream: ImageStream, batch_size: int, args: Any):
        try:
            from torchdata.stateful_dataloader import StatefulDataLoader
        except ImportError:
            raise UsageError("--streaming needs torchdata: pip install 'hf_mae[streaming]'.") from None
        self.file_name = f"stream-{args.process_index}.pt"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # torchdata 0.11 calls it, torch 2.14 tells
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
        """What the Trainer reads."""
        loader: DataLoader = self.loader
        return loader

    def save(self, checkpoint: Path) -> None:
        """Keeps the place of every worker."""
        state = {"workers": self.loader.num_workers, "loader": self.loader.state_dict()}
        with atomic_write_file(checkpoint / self.file_name) as temporary:
            torch.save(state, temporary)

    def load(self, checkpoint: Path) -> None:
        """Takes up the places that a checkpoint has.

        Raises:
            UsageError: it has none for this process, or for another number of workers.
        """
        path = checkpoint / self.file_name
        if not path.is_file():
            raise UsageError(f"{checkpoint} was not saved by a run with --streaming: leave the flag as it was.")
        state = torch.load(path, weights_only=True)
        if state["workers"] != self.loader.num_workers:
            raise UsageError(
                f"{checkpoint} was saved with --dataloader_num_workers {state['workers']}, and each of them reads "
                f"files of its own: go on with that number, not {self.loader.num_workers}."
            )
        self.loader.load_state_dict(state["loader"])
