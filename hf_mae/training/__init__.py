"""The Trainer subclasses, layer decay, losses, engines, preemption, trackers."""
