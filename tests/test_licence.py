"""Every licence that a card names is known to allow commercial use, or not to."""

from __future__ import annotations

from luma_cli.catalogue.cards import candidates
from luma_cli.catalogue.licences import OWN_TERMS, PERMISSIVE, RESTRICTED, is_commercial
from luma_cli.cli.guided.dialogue import DEMANDS, LABELS


def test_every_licence_of_the_cards_is_judged_and_every_judged_one_occurs() -> None:
    named = {spec.licence for spec in candidates() if spec.public_weights}
    judged = [*PERMISSIVE, *OWN_TERMS, *RESTRICTED]
    assert sorted(named) == sorted(judged)


def test_what_is_demanded() -> None:
    assert list(DEMANDS) == list(LABELS)
    assert set(DEMANDS["permissive"]) < set(DEMANDS["commercial"])
    assert not set(DEMANDS["commercial"]) & set(RESTRICTED)
    assert DEMANDS["any"] == ()


def test_a_licence_that_nobody_judged_is_not_commercial() -> None:
    assert [is_commercial(each) for each in ("mit", "dinov3-license", "cc-by-nc-4.0", "new-license", "")] == [
        *(True, True),
        *(False, False, False),
    ]
