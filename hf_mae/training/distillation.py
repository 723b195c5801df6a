"""Knowledge distillation (Hinton et al. 2015) on the same augmented images (Beyer et al. 2022)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..compat.deepspeed import disable_zero3_init
from ..models.ensemble import EnsembleMember, adapt_classifier
from ..models.loading import load_classifier
from ..settings.arguments import FinetuningArguments


class Teacher(nn.Module):
    """A frozen classifier or ensemble whose class probabilities a student learns from.

    Args:
        model, processor: teacher, from `models.loading.load_classifier`.
        student, student_processor: model that is trained. It has the same classes, in any order. Its preprocessing may
            differ from the teacher's in mean and standard deviation only.
        temperature: divisor of the logits of both models.

    Raises:
        UsageError: If the classes or the preprocessing differ.
    """

    def __init__(self, model: Any, processor: Any, student: Any, student_processor: Any, temperature: float):
        super().__init__()
        self.temperature = temperature
        self.member: EnsembleMember = adapt_classifier(student, student_processor, model, processor)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def scores(self, pixel_values: Tensor) -> Tensor:
        """Returns class probabilities (images, classes) at the temperature."""
        logits = self.member(pixel_values).clamp_min(torch.finfo(torch.float32).tiny).log()
        return (logits / self.temperature).softmax(-1)

    def loss_sum(self, logits: Tensor, pixel_values: Tensor) -> Tensor:
        """Computes the Kullback-Leibler divergence of the student from the teacher, summed over images, times
        temperature squared.

        The factor keeps the size of the gradients independent of the temperature.
        """
        log_scores = F.log_softmax(logits.float() / self.temperature, dim=-1)
        return F.kl_div(log_scores, self.scores(pixel_values), reduction="sum") * self.temperature**2


def load_teacher(args: FinetuningArguments, student: Any, student_processor: Any) -> Teacher | None:
    """Loads the teacher for knowledge distillation; None if the arguments name no teacher."""
    if not args.teacher:
        return None
    with disable_zero3_init():
        model, processor = load_classifier(args.teacher)
    return Teacher(model, processor, student, student_processor, args.teacher_temperature)
