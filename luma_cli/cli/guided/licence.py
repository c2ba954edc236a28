"""Which licences of weights allow what, for those that the cards name.

Sources: the DINOv3 License (https://ai.meta.com/resources/models-and-libraries/dinov3-license/) and the NVIDIA Open
Model License (https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/) allow commercial
use under terms of their own. What is in neither list is for research alone, or its terms leave that in doubt.
"""

from __future__ import annotations

from collections.abc import Mapping

PERMISSIVE = ("apache-2.0", "mit")
OWN_TERMS = ("dinov3-license", "nvidia-open-model-license")
RESEARCH_OR_DOUBTFUL = ("apple-amlr", "cc-by-nc-4.0", "fair-noncommercial-research-license", "fastvit-license")

# What is asked for -> the licences that will do; empty for any.
DEMANDS: Mapping[str, tuple[str, ...]] = {
    "any": (),
    "commercial": (*PERMISSIVE, *OWN_TERMS),
    "permissive": PERMISSIVE,
}
LABELS: Mapping[str, str] = {
    "any": "any licence",
    "commercial": "commercial use allowed, also by own terms (DINOv3, NVIDIA)",
    "permissive": f"{' or '.join(PERMISSIVE)} only",
}
