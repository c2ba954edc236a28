"""Facts of a sweep come from one count, follow the part under test, and are missing with a reason."""

from __future__ import annotations

from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.measure import sweep
from luma_cli.measure.cost import Refusal, counted_facts


def test_the_cost_is_of_the_part() -> None:
    facts = {}
    for part in ("all", "backbone", "head"):
        (configuration,) = sweep.plan([resolve("test_vit")], [64], sweep.template(part=part))
        (facts[part],) = counted_facts([configuration])
    assert all(isinstance(found, dict) for found in facts.values())
    assert facts["all"]["macs"] == facts["backbone"]["macs"] + facts["head"]["macs"]
    assert facts["all"]["params"] == facts["backbone"]["params"] + facts["head"]["params"]
    assert facts["head"]["macs"] == facts["all"]["head_macs"] > 0
    assert facts["backbone"]["ffn"] == "none"


def test_what_cannot_be_counted_says_why_and_hides_nothing() -> None:
    specs = [resolve("test_vit"), BackboneSpec("no_such_net", "no_such_net", "no_such_net")]
    good, bad = (
        counted_facts(sweep.plan(specs[:1], [64], sweep.template())),
        counted_facts(sweep.plan(specs[1:], [64], sweep.template())),
    )
    assert isinstance(good[0], dict)
    assert isinstance(bad[0], Refusal)
    assert "no_such_net" in bad[0].message
