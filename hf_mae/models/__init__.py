"""Models: stock transformers classes from checkpoints, ensembles, and changes for training and inference."""
