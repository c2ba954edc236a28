"""Isotropic vision transformers that timm lacks: other token mixers in place of attention, experts in place of FFNs."""
