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
    "apache-2.0": "apache",
    "apple-amlr": "Apple",
    "cc-by-nc-4.0": "cc-by",
    "dinov3-license": "DINOv3",
    "nvidia-open-model-license": "NVIDIA",
    "fair-noncommercial-research-license": "FAIR",
    "fastvit-license": "FastViT",
}


def marked(licence: str, name: str = "") -> str:
    """The licence, by `name` if given, with `NC` where it does not allow commercial use, or leaves it in doubt.

    >>> marked("cc-by-nc-4.0"), marked("mit"), marked("")
    ('cc-by-nc-4.0 NC', 'mit', 'unknown NC')
    """
    said = name or licence or "unknown"
    return said if is_commercial(licence) else f"{said} NC"


def short(licence: str) -> str:
    """The same for a narrow table.

    >>> short("cc-by-nc-4.0"), short("dinov3-license"), short("mit")
    ('cc-by NC', 'DINOv3', 'mit')
    """
    return marked(licence, _SHORT.get(licence, ""))
