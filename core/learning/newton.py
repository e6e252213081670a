"""Newton's method for penalised multinomial logistic regression, many problems at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Largest entry of the gradient at which a solution counts as the optimum.
TOLERANCE = 1e-6
NEWTON_STEPS = 50
CONJUGATE_STEPS = 200
HALVINGS = 30
TINY = 1e-300


@dataclass(frozen=True, slots=True)
class LogisticProblems:
    """P problems that differ in the weights of the rows and in the penalty.

    Minimised is, for each of them, sum_n w_n CE(x_n W, y_n) + 1/2 sum_r penalty_r |W_r|^2.

    Attributes:
        features_NR: float64.
        hot_N1K: One in the column of each row's class, float64.
        weight_NP1: Weights of the rows, their sum is one for each problem.
        penalty_RP1: At least 0.
    """

    features_NR: Tensor
    hot_N1K: Tensor
    weight_NP1: Tensor
    penalty_RP1: Tensor

    @classmethod
    def of(
        cls,
        features_NR: Tensor,
        targets_N: Tensor,
        *,
        class_count: int,
        weight_PN: Tensor,
        penalty_PR: Tensor,
    ) -> LogisticProblems:
        """From class indices, and one line a problem."""
        return cls(
            features_NR=features_NR,
            hot_N1K=functional.one_hot(targets_N, class_count).double()[:, None],
            weight_NP1=weight_PN.T[..., None].contiguous(),
            penalty_RP1=penalty_PR.T[..., None].contiguous(),
        )

    def minimise(self, start_RPK: Tensor) -> Tensor:
        """The optimum of every problem, (R, P, K), from any start.

        Newton steps whose equations conjugate gradients solve, more and more exactly as the
        optimum nears (Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 7.1). The
        preconditioner is the diagonal of the Hessian: where the features are uncorrelated, little
        is left beside it.
        """
        solution_RPK = start_RPK
        value_P, log_NPK = self._value(solution_RPK)
        for _ in range(NEWTON_STEPS):
            gradient_RPK = self._gradient(solution_RPK, log_NPK.exp())
            if float(gradient_RPK.abs().max()) <= TOLERANCE:
                break
            direction_RPK = self._direction(gradient_RPK, log_NPK.exp())
            slope_P = _dot(gradient_RPK, direction_RPK)
            length_P = torch.ones_like(slope_P)
            for _ in range(HALVINGS):
                moved_RPK = solution_RPK + length_P[:, None] * direction_RPK
                moved_P, log_NPK = self._value(moved_RPK)
                # Near the optimum the decrease is smaller than the rounding of the value.
                most_P = value_P + 1e-4 * length_P * slope_P + 1e-13 * value_P.abs()
                if bool((moved_P <= most_P).all()):
                    break
                length_P = torch.where(moved_P <= most_P, length_P, length_P / 2)
            solution_RPK, value_P = moved_RPK, moved_P
        return solution_RPK

    def _value(self, solution_RPK: Tensor) -> tuple[Tensor, Tensor]:
        log_NPK = _times(self.features_NR, solution_RPK).log_softmax(dim=2)
        fit_P = -(self.weight_NP1 * log_NPK * self.hot_N1K).sum(dim=(0, 2))
        return fit_P + (self.penalty_RP1 * solution_RPK.square()).sum(dim=(0, 2)) / 2, log_NPK

    def _gradient(self, solution_RPK: Tensor, share_NPK: Tensor) -> Tensor:
        residual_NPK = self.weight_NP1 * (share_NPK - self.hot_N1K)
        return _times(self.features_NR.T, residual_NPK) + self.penalty_RP1 * solution_RPK

    def _direction(self, gradient_RPK: Tensor, share_NPK: Tensor) -> Tensor:
        """Minus the inverse Hessian times the gradient, about."""
        weighted_NPK = self.weight_NP1 * share_NPK
        curvature_RPK = _times(self.features_NR.square().T, weighted_NPK * (1 - share_NPK))
        inverse_RPK = (curvature_RPK + self.penalty_RP1).clamp(min=1e-14).reciprocal()
        largest_P = gradient_RPK.abs().amax(dim=(0, 2))
        direction_RPK, rest_RPK = torch.zeros_like(gradient_RPK), -gradient_RPK
        search_RPK = rest_RPK * inverse_RPK
        size_P = _dot(rest_RPK, search_RPK)
        enough_P = 0.01 * largest_P.clamp(max=0.01) * size_P
        for _ in range(CONJUGATE_STEPS):
            logits_NPK = _times(self.features_NR, search_RPK)
            mean_NP1 = (share_NPK * logits_NPK).sum(dim=2, keepdim=True)
            bent_RPK = _times(self.features_NR.T, weighted_NPK * (logits_NPK - mean_NP1))
            bent_RPK = bent_RPK + self.penalty_RP1 * search_RPK
            bend_P = _dot(search_RPK, bent_RPK)
            # A problem that is solved stands still until the others are, too.
            active_P = (size_P > enough_P) & (bend_P > 0)
            step_P1 = torch.where(active_P, size_P / bend_P.clamp(min=TINY), 0.0)[:, None]
            direction_RPK = direction_RPK + step_P1 * search_RPK
            rest_RPK = rest_RPK - step_P1 * bent_RPK
            scaled_RPK = rest_RPK * inverse_RPK
            left_P = torch.where(active_P, _dot(rest_RPK, scaled_RPK), 0.0)
            if not bool((left_P > enough_P).any()):
                break
            search_RPK = scaled_RPK + (left_P / size_P.clamp(min=TINY))[:, None] * search_RPK
            size_P = left_P
        return direction_RPK


def _times(left_AB: Tensor, right_BPK: Tensor) -> Tensor:
    """One matrix product for all problems."""
    return (left_AB @ right_BPK.flatten(1)).view(len(left_AB), *right_BPK.shape[1:])


def _dot(one_RPK: Tensor, other_RPK: Tensor) -> Tensor:
    return (one_RPK * other_RPK).sum(dim=(0, 2))
