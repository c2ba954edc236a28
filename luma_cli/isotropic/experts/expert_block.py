"""timm's transformer block with experts in the place of its FFN; the two classes differ in what queries may use."""

from __future__ import annotations

from timm.models.vision_transformer import Block


class ExpertBlock(Block):
    """A block whose `mlp` is a RoutedMlp: queries go through router and experts, each as a group of its own."""


class SoftExpertBlock(Block):
    """A block whose `mlp` is a SoftMlp: its experts see mixtures of tokens, so a query alone has no FFN to run."""
