"""Ways to run a trained model: the same answers, at different speeds."""

from core.learning.runtimes.choice import Candidate, Choice, choose
from core.learning.runtimes.probe import Probe
from core.learning.runtimes.run import Floats, Pixels, Run

__all__ = ["Candidate", "Choice", "Floats", "Pixels", "Probe", "Run", "choose"]
