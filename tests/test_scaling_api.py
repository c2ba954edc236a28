"""Which model the scaling law is for when the user names none."""

from __future__ import annotations

import pytest

from luma_cli.advise.more_compute import usual_start
from luma_cli.advise.next import next_runs
from luma_cli.advise.question import Question
from luma_cli.catalogue.names import resolve
from luma_cli.errors import UsageError


@pytest.mark.parametrize("family", ["isotropic", "convolutional", "hierarchical", "hybrid"])
def test_the_law_is_for_a_model_of_the_family_that_was_asked_for(family: str) -> None:
    assert resolve(usual_start(family, "").partition("@")[0]).family == family


def test_the_law_is_for_the_pretraining_that_was_asked_for_where_the_model_has_it() -> None:
    assert usual_start("", "mae") == "vit_b.mae@512"
    assert usual_start("convolutional", "mae") == "convnext_b.dinov3@512"


def test_nothing_is_trained_without_a_head() -> None:
    with pytest.raises(UsageError, match="--head none cannot be trained"):
        next_runs(Question("ade20k", head="none"))
