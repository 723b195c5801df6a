"""Learning from another model's scores (Hinton et al. 2015), on the same augmented images (Beyer et al. 2022)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.ensemble import EnsembleMember, adapt_classifier


class Teacher(nn.Module):
    """A classifier, or an ensemble, whose scores a student learns from.

    Args:
        model, processor: of `models.loading.load_classifier`.
        student, students_processor: what learns from it: the same classes, in any order; images that are read the same
            way, but for mean and standard deviation.
        temperature: by which both models' logits are divided.

    Raises:
        UsageError: the classes differ, or the images are read otherwise.
    """

    def __init__(self, model: Any, processor: Any, student: Any, student_processor: Any, temperature: float):
        super().__init__()
        self.temperature = temperature
        self.member: EnsembleMember = adapt_classifier(student, student_processor, model, processor)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def scores(self, pixel_values: Tensor) -> Tensor:
        """(images, classes), each row summing to 1, at the temperature."""
        logits = self.member(pixel_values).clamp_min(torch.finfo(torch.float32).tiny).log()
        return (logits / self.temperature).softmax(-1)

    def loss_sum(self, logits: Tensor, pixel_values: Tensor) -> Tensor:
        """The divergence of a student's scores from the teacher's, summed over images, times the temperature squared:
        gradients then are as large as without one."""
        log_scores = F.log_softmax(logits.float() / self.temperature, dim=-1)
        return F.kl_div(log_scores, self.scores(pixel_values), reduction="sum") * self.temperature**2
