"""The audit: leave-out by definition, honest shares, regret by hand, and a rule that wins decides."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from accuracy_world import row, some_rows

from luma_cli.accuracy.audit import NUM_FOLDS, audit
from luma_cli.accuracy.baselines import RULES, Known, nearest_neighbour
from luma_cli.accuracy.components import load_components
from luma_cli.accuracy.labels import usual_labels
from luma_cli.accuracy.model import learn
from luma_cli.accuracy.observations import observe
from luma_cli.accuracy.regret import MODEL, Regret, best_rule, regrets
from luma_cli.accuracy.rule_chooser import chooser
from luma_cli.accuracy.sightings import Sighting
from luma_cli.accuracy.subjects import subject_of

SIZES = {"swin_tiny": 41.0, "swin_small": 44.0, "swin_base": 46.0, "convnext_tiny": 43.0, "convnext_small": 45.0}


@pytest.fixture(scope="module")
def rows():
    return some_rows(7)


@pytest.fixture(scope="module")
def found(rows):
    return audit(rows)


def test_every_way_has_scores_of_every_dataset_and_regime(found, rows):
    assert found.num_rows == len([each for each in rows if each.height or each.provenance != "published LUMA"])
    assert {score.left_out for score in found.scores} >= {"backbone", "series", "objective", "source", "head"}
    for score in found.scores:
        assert score.num + score.num_kept <= len(rows)
        assert 0 <= score.mae <= score.rmse
        assert abs(score.bias) <= score.mae
        assert sorted(score.coverage) == list(score.coverage)


def test_scores_are_those_of_predictions_without_the_rows(rows):
    left = [each for each in rows if each.dataset == "ade20k" and each.regime == "fine-tuned"]
    components = load_components()
    errors = []
    for backbone in sorted({each.backbone for each in left})[:6]:
        model = learn([each for each in rows if each.backbone != backbone], components)
        mine = [each for each in left if each.backbone == backbone]
        observed = observe(rows, components.sensitivity)
        subjects = [observed.subjects[observed.ids.index(each.id)] for each in mine]
        errors += [p.miou_percent - each.miou_percent for p, each in zip(model.predict(subjects), mine, strict=True)]
    whole = audit(rows, components=components)
    (score,) = [s for s in whole.scores if (s.left_out, s.dataset, s.regime) == ("backbone", "ade20k", "fine-tuned")]
    assert np.mean(np.abs(errors)) < 3 * score.rmse
    assert len(errors) < score.num


def test_the_audit_is_plain_values(found):
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["schema"] == 1
    assert told["components_relearned"] is False
    assert set(told["chosen"]) == set(told["regrets"])


def test_components_can_be_learned_without_the_rows_too(rows):
    few = rows[::3]
    found = audit(few, relearn=True)
    assert found.relearned is True
    assert NUM_FOLDS > 1
    assert found.scores


def test_regret_is_what_the_choice_loses():
    observed = observe([row(name, miou) for name, miou in SIZES.items()], {})
    mious = [SIZES[subject.backbone] for subject in observed.subjects]
    perfect = regrets(observed, mious, mious)["ade20k"]
    assert perfect[MODEL] == Regret(0.0, 0.0, 7)
    worst = regrets(observed, mious, [-each for each in mious])["ade20k"][MODEL]
    assert worst.at_1 > worst.at_3 >= 0
    assert perfect["largest that fits"].at_1 < worst.at_1


def test_the_model_decides_unless_it_is_beaten():
    same = Regret(0.3, 0.1, 7)
    assert best_rule({MODEL: same, "largest that fits": same}) == MODEL
    assert best_rule({MODEL: same, "largest that fits": replace(same, at_1=0.2)}) == "largest that fits"


def test_a_rule_that_wins_chooses():
    evidence = [row(name, miou) for name, miou in SIZES.items()]
    model = learn(evidence)
    model.regrets = {"ade20k": {MODEL: Regret(1.0, 0.5, 7), "nearest neighbour": Regret(0.2, 0.1, 7)}}
    rule = chooser(model, "ade20k", evidence)
    assert rule is not None
    assert "0.20" in rule.reason
    assert rule.scores([subject_of("swin_base", "ade20k", resolution=512)], [None]) == [46.0]
    model.regrets = {"ade20k": {MODEL: Regret(0.1, 0.1, 7), "nearest neighbour": Regret(0.2, 0.1, 7)}}
    assert chooser(model, "ade20k", evidence) is None
    assert chooser(model, "cityscapes", evidence) is None


def test_rules_order_by_what_they_say():
    small, large = (subject_of(name, "ade20k", resolution=512) for name in ("swin_tiny", "swin_base"))
    assert RULES["largest that fits"](large, ()) > RULES["largest that fits"](small, ())
    assert RULES["size and tokens (80/20)"](large, ()) > RULES["size and tokens (80/20)"](small, ())
    assert nearest_neighbour(small, [Known(large, 50.0), Known(small, 40.0)]) == 40.0
    assert nearest_neighbour(small, []) == 0.0


def test_labels_are_those_of_the_size():
    rows = [
        Sighting.of(subject_of(name, "ade20k", pretraining=labels))
        for name, labels in [("swin_tiny", "supervised_in1k"), ("swin_large", "supervised_in21k")]
    ]
    assert usual_labels(subject_of("convnext_large", "ade20k"), rows) == "supervised_in21k"
    assert usual_labels(subject_of("convnext_tiny", "ade20k"), rows) == "supervised_in1k"
    assert usual_labels(subject_of("convnext_xlarge", "ade20k"), rows) == "supervised_in1k"
