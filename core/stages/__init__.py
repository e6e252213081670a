"""The stages: where rows and blobs meet tensors."""

from collections.abc import Callable

from core.stages.context import StageContext
from core.stages.distill import run_distill
from core.stages.embed import run_embed
from core.stages.evaluate import run_evaluate
from core.stages.finetune import run_finetune
from core.stages.outcome import Outcome
from core.stages.pretrain import run_pretrain
from core.stages.report import Finding

STAGES: dict[str, Callable[[StageContext], Outcome | Finding]] = {
    "pretrain": run_pretrain,
    "finetune": run_finetune,
    "distill": run_distill,
    "embed": run_embed,
    "evaluate": run_evaluate,
}
