from __future__ import annotations

import pytest

from luma_cli.accuracy.backbones import lineages, normalised, recognise
from luma_cli.catalogue.cards import candidates
from luma_cli.evidence.evidence import load_reference

# How papers, model cards, mmseg's configurations, timm and our cards write it; its series; its millions of parameters.
SPELLINGS = """
Swin-T                          swin          28
Swin-S                          swin          49
Swin-B                          swin          87
Swin-L                          swin          195
swin_large_patch4_window12_384.ms_in22k  swin 195
swin-tiny-patch4-window7        swin          28
SwinV2-B                        swinv2        87
swinv2_base_window8_256         swinv2        87
ConvNeXt-T                      convnext      28
ConvNeXt-XL                     convnext      348
convnext-tiny                   convnext      28
convnext_b                      convnext      88
convnext_b.supervised_in21k     convnext      88
convnext_base.fb_in22k_ft_in1k  convnext      88
dinov3_convnext_base            convnext      88
OpenCLIP_ConvNeXt-B             convnext      88
ConvNeXt_V2-B                   convnextv2    88
convnextv2_huge.fcmae           convnextv2    658
ViT-B/16                        vit           86
ViT-L/14                        vit           303
ViT-B                           vit           86
ViT-S                           vit           22
ViT-H                           vit           631
ViT-g                           vit           1050
vit_t                           vit           5.5
vit_b.dinov3                    vit           86
vit_base_patch16_224.mae        vit           86
vit_large_patch14_dinov2.lvd142m  vit         303
vit_base_patch16_dinov3.lvd1689m  vit         86
dinov2_vitb14                   vit           86
dinov3_vitl16                   vit           303
DINOv2_ViT-L/14                 vit           303
DeiT-S                          vit           22
DeiT-B                          vit           86
deit3_base_patch16_224          vit           86
BEiT-B                          vit           86
BEiT_v2-L                       vit           304
beit_large_patch16_224          vit           304
PE-Core-L                       vit           303
AIMv2-L                         vit           309
SigLIP2_ViT-B/16                vit           86
CLIP_ViT-B/16                   vit           86
EVA-02-L                        eva02         304
eva02_large_patch14_448.mim_m38m_ft_in22k_in1k  eva02  304
MiT-B0                          mit           3.4
mit_b2                          mit           24
SegFormer-B5                    mit           82
ResNet-50                       resnet        23.5
ResNet-101-D8                   resnet        42.5
R-50                            resnet        23.5
R101                            resnet        42.5
resnet50_v1c                    resnet        23.5
resnet101.a1_in1k               resnet        42.5
HRNet-W48                       hrnet         75
HRNetV2-W18                     hrnet         20
PVT-Small                       pvt           24
PVTv2-B2                        pvt_v2        25
pvt_v2_b5                       pvt_v2        82
Twins-SVT-S                     twins_svt     23.5
twins_pcpvt_base                twins_pcpvt   43
InternImage-T                   internimage   30
internimage_h                   internimage   1080
FocalNet-B                      focalnet      88
CSWin-B                         cswin         78
MobileNetV2                     mobilenetv2   2.2
mobilenet_v2                    mobilenetv2   2.2
MobileNetV3-Large               mobilenetv3   4.2
EfficientNet-B0                 efficientnet  4
PoolFormer-S36                  poolformer    31
Hiera-B+                        hiera         69
Next-ViT-S                      nextvit       31
RepViT-M1.1                     repvit        8
FastViT-SA12                    fastvit       11
UniFormer-S                     uniformer     22
VMamba-T                        vmamba        30
DiNAT-L                         dinat         200
"""
TABLE = [tuple(line.split()) for line in SPELLINGS.strip().splitlines()]


@pytest.mark.parametrize(("spelling", "series", "millions"), TABLE)
def test_a_spelling_is_recognised(spelling: str, series: str, millions: str) -> None:
    found = recognise(spelling.replace("_ViT", " ViT").replace("_v2", " v2"))
    assert found.lineage is not None
    assert found.lineage.name == series
    assert found.params is not None
    assert found.params / 1e6 == pytest.approx(float(millions), rel=0.05)


def test_spellings_of_one_backbone_are_one_architecture() -> None:
    for same in (
        ("Swin-T", "swin_tiny", "swin_t", "swin_tiny_patch4_window7_224.ms_in1k", "Swin-T (IN-1k)"),
        ("ResNet-50", "resnet50", "R50", "resnet50.a1_in1k"),
        ("ConvNeXt-B", "convnext_base", "convnext_b.clip", "convnext_base.fb_in22k"),
    ):
        assert len({recognise(name).architecture for name in same}) == 1


@pytest.mark.parametrize("name", ["my_net", "MetaFormer", "", "-", "nobody_knows", "swinging", "vitamin", "hf-hub:a/b"])
def test_a_name_that_nobody_knows_has_no_series_and_no_size(name: str) -> None:
    found = recognise(name)
    assert found.lineage is None
    assert found.params is None
    assert found.size_origin == ""


def test_a_size_word_alone_gives_a_size_that_says_what_it_is() -> None:
    found = recognise("nobody_knows_base")
    assert found.lineage is None
    assert (found.params, found.size_origin) == (87e6, "by its size word")


def test_a_size_written_out_is_read() -> None:
    assert recognise("one_peace_1.5b").params == pytest.approx(1.5e9, rel=0.05)
    assert recognise("vit_so400m").params == 400e6


def test_tags_end_a_name_and_sizes_do_not() -> None:
    assert normalised("vit_b.dinov3") == "vit_b"
    assert normalised("RepViT-M1.1") == "repvit_m1.1"
    assert normalised("Swin-B (ImageNet-22k)") == "swin_b"
    assert normalised("hf-hub:timm/swin_tiny_patch4_window7_224.ms_in1k") == "swin_tiny_patch4_window7_224"


def test_every_shipped_backbone_has_a_series_or_is_known_not_to() -> None:
    strangers = {row.backbone for row in load_reference() if recognise(row.backbone).lineage is None}
    assert len(strangers) <= 3, strangers


def test_every_candidate_has_a_size() -> None:
    assert [each.timm_name for each in candidates() if recognise(each.timm_name).params is None] == []


def test_series_have_years_and_papers() -> None:
    found = lineages()
    assert len({each.name for each in found}) == len(found) > 100
    assert all(2010 < each.year < 2027 for each in found)
