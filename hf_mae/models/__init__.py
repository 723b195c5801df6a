"""Stock transformers classes from checkpoints, and what is done to them while they train and look."""
