"""An encoder that keeps what the robot's action can change (Pathak et al. 2017, Sec. 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .features import mlp


class InverseDynamics(nn.Module):
    r"""Encoder phi, trained by guessing the action between two states.

    .. math:: \hat a_t = g(\phi(s_t), \phi(s_{t+1})), \qquad L_I = \lVert \hat a_t - a_t \rVert^2

    For continuous actions; summed over the dimensions of the action.
    """

    def __init__(
        self, in_dim: int, action_dim: int, embed_dim: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.encoder = mlp((in_dim, hidden, embed_dim), nn.ReLU, generator)
        self.head = mlp((2 * embed_dim, hidden, action_dim), nn.ReLU, generator)

    def encode(self, features: Tensor) -> Tensor:
        """(..., embed_dim) embedding of (..., in_dim) inputs."""
        return self.encoder(features)  # type: ignore[no-any-return]

    def loss(self, phi: Tensor, next_phi: Tensor, action: Tensor) -> Tensor:
        """(B,) squared error of the guessed action."""
        guess = self.head(torch.cat((phi, next_phi), dim=-1))
        return (guess - action).square().sum(dim=-1)  # type: ignore[no-any-return]
