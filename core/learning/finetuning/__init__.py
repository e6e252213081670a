"""Stage 2: a classifier from few labels, on a frozen encoder or training everything."""

from core.learning.finetuning.config import FinetuneConfig
from core.learning.finetuning.finetuner import Finetuned, finetune
from core.learning.finetuning.phases import Phases
from core.learning.finetuning.supervised import SupervisedTask

__all__ = ["FinetuneConfig", "Finetuned", "Phases", "SupervisedTask", "finetune"]
