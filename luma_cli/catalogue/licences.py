"""What the licences of pretrained weights allow.

The DINOv3 License (https://ai.meta.com/resources/models-and-libraries/dinov3-license/) and the NVIDIA Open Model
License (https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license/) allow commercial use
under their own terms. Those of RESTRICTED are for research only, or leave commercial use in doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PERMISSIVE = ("apache-2.0", "mit")
OWN_TERMS = ("dinov3-license", "nvidia-open-model-license")
RESTRICTED = ("apple-amlr", "cc-by-nc-4.0", "fair-noncommercial-research-license", "fastvit-license")
# What `--license` takes besides a licence's own name.
GROUPS: Mapping[str, tuple[str, ...]] = {"commercial": (*PERMISSIVE, *OWN_TERMS), "permissive": PERMISSIVE}


def expanded(names: Iterable[str]) -> frozenset[str]:
    """The licences of these names and groups.

    >>> sorted(expanded(["permissive", "dinov3-license"]))
    ['apache-2.0', 'dinov3-license', 'mit']
    """
    return frozenset(licence for name in names for licence in GROUPS.get(name, (name,)))


def is_commercial(licence: str) -> bool:
    """Whether commercial use is allowed; not for an unknown licence."""
    return licence in GROUPS["commercial"]


_SHORT = {
    "cc-by-nc-4.0": "cc-by-nc",
    "dinov3-license": "DINOv3",
    "nvidia-open-model-license": "NVIDIA",
    "fair-noncommercial-research-license": "FAIR",
    "fastvit-license": "FastViT",
}


def short(licence: str) -> str:
    """The licence for a narrow table; `NC` marks one that does not allow commercial use, or leaves it in doubt.

    >>> short("cc-by-nc-4.0"), short("dinov3-license"), short("mit"), short("")
    ('cc-by-nc NC', 'DINOv3', 'mit', 'unknown NC')
    """
    name = _SHORT.get(licence, licence) or "unknown"
    return name if is_commercial(licence) else f"{name} NC"
