"""Mixtures of experts in the place of a block's FFN: Switch, V-MoE and Soft MoE, dispatched with static shapes."""
