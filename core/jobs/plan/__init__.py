"""The one place where `auto` becomes a value, from the data and the device."""

from core.jobs.plan.distill import plan_distill
from core.jobs.plan.facts import (
    DataFacts,
    Device,
    Parent,
    Plan,
    facts_of,
)
from core.jobs.plan.finetune import plan_finetune
from core.jobs.plan.network import SMALLER, parent_of, stem_for
from core.jobs.plan.pretrain import plan_pretrain
from core.jobs.plan.report import plan_embed, plan_evaluate

__all__ = [
    "SMALLER",
    "DataFacts",
    "Device",
    "Parent",
    "Plan",
    "facts_of",
    "parent_of",
    "plan_distill",
    "plan_embed",
    "plan_evaluate",
    "plan_finetune",
    "plan_pretrain",
    "stem_for",
]
