"""EoMT segmenters that other programs trained, read from their files: weights in our names, classes, size, backbone.

Two forms. Checkpoints of https://github.com/tue-mps/eomt: Lightning's `.ckpt` and what its hub has, for DINOv3 as
differences from the backbone's own weights (training/lightning_module.py). Folders that `save_pretrained` of
transformers wrote, of EomtForUniversalSegmentation and EomtDinov3ForUniversalSegmentation. Nothing runs code of a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from luma_cli.backbone.checkpoint_files import read_tensors
from luma_cli.backbone.create import create_backbone
from luma_cli.backbone.timm_model import Normalisation
from luma_cli.catalogue.datasets import DatasetCard, card_names, load_card
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.spec import weights_in
from luma_cli.errors import CheckpointError, RunError, WeightsError
from luma_cli.head.segmenter import Segmenter
from luma_cli.train import run_folder
from luma_cli.train.checkpoint import CheckpointState, fill, save_checkpoint
from luma_cli.train.config import Given, RunConfig, new_config
from luma_cli.train.run_folder import CONFIG, ROOT

_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth", ".safetensors")
_ARCHITECTURES = ("EomtForUniversalSegmentation", "EomtDinov3ForUniversalSegmentation")
_MODEL = "backbone.model."
# Not weights: buffers that say how far the training was, how images and classes are weighed, what pretraining masked.
_DROPPED = re.compile(
    r"attn_mask_probs$|pixel_(mean|std)$|^criterion\.|^metrics\.|mask_token$|rope_embeddings\.|rope\."
)
_RENAMED = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        # the head: of the official code, then of transformers
        (r"^q\.", "head.queries."),
        (r"^class_head\.", "head.classify."),
        (r"^mask_head\.(\d)\.", r"head.mask.\1."),
        (r"^upscale\.", "head.upscale."),
        (r"^query\.", "head.queries."),
        (r"^class_predictor\.", "head.classify."),
        (r"^mask_head\.fc1\.", "head.mask.0."),
        (r"^mask_head\.fc2\.", "head.mask.2."),
        (r"^mask_head\.fc3\.", "head.mask.4."),
        (r"^upscale_block\.block\.", "head.upscale."),
        (r"(^head\.upscale\.\d+\.)conv1\.", r"\1enlarge."),
        (r"(^head\.upscale\.\d+\.)conv2\.", r"\1smooth."),
        (r"(^head\.upscale\.\d+\.)layernorm2d\.", r"\1norm."),
        # the backbone: timm's names stay, transformers' become timm's
        (r"^encoder\.backbone\.", _MODEL),
        (r"^embeddings\.", f"{_MODEL}patch_embed."),
        (r"^(model\.)?layers?\.", f"{_MODEL}blocks."),
        (r"^(layer)?norm\.", f"{_MODEL}norm."),
        (r"\.patch_embed\.cls_token$", ".cls_token"),
        (r"\.patch_embed\.register_tokens$", ".reg_token"),
        (r"\.patch_embed\.position_embeddings\.weight$", ".pos_embed"),
        (r"\.patch_embed\.patch_embeddings\.(projection\.)?", ".patch_embed.proj."),
        (r"\.attention\.(out|o)_proj\.", ".attn.proj."),
        (r"\.mlp\.weights_in\.", ".mlp.fc1."),
        (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    )
)
# Backbone by width in channels, of those that EoMT released; every one is told apart by the shapes of its weights.
_DINOV2 = {384: "small", 768: "base", 1024: "large", 1536: "giant"}
_DINOV3 = {384: ("small", "small_plus"), 768: ("base",), 1024: ("large",), 1280: ("huge_plus",)}
_BASES = {"small": "s", "small_plus": "splus", "base": "b", "large": "l", "huge_plus": "hplus"}


@dataclass(frozen=True, slots=True)
class Foreign:
    """What a file of another program holds. sha256: of its weights. names: of the classes, empty where it has none.

    backbone: a timm name. state: as of our `Segmenter`; is_delta: what is the backbone's is to be added to its
    pretrained weights. num_heads of the backbone's attention, norm_eps of its LayerNorms: 0 where the file does not say
    it.
    """

    path: Path
    sha256: str
    head: HeadConfig
    backbone: str
    resolution: int
    normalisation: Normalisation
    names: tuple[str, ...]
    state: Mapping[str, Tensor]
    is_delta: bool = False
    num_heads: int = 0
    norm_eps: float = 0.0


def is_foreign(path: Path) -> bool:
    """Whether `path` looks like another program's: a weights file or a folder without a luma configuration."""
    folder = path if path.is_dir() else path.parent
    values = _json(folder / CONFIG)
    if path.is_dir():
        return "architectures" in values or "model_type" in values
    return path.suffix in _SUFFIXES and path.is_file() and not {"backbone", "recipe"} <= values.keys()


def read_foreign(path: Path, backbone: str | None = None, resolution: int | None = None) -> Foreign:
    """What the checkpoint file or the transformers folder `path` holds.

    backbone, resolution: said by the user, for files that do not say them. Raises CheckpointError for what is no EoMT,
    for half a model and where something is missing, naming the option; WeightsError for a file that cannot be read.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; expected a checkpoint file or a folder of transformers")
    config = _transformers_config(path)
    tensors, sha256 = read_tensors(weights_in(path) if path.is_dir() else path)
    raw = {key.removeprefix("network."): value for key, value in tensors.items()}
    if "head.queries.weight" in raw or any(key.startswith(_MODEL) for key in raw):
        raise CheckpointError(
            f"{path} is a checkpoint of luma without the {CONFIG} that belongs beside it; "
            f"copy that to {path.parent} too"
        )
    state = renamed(raw)
    if missing := [name for name in ("head.queries.weight", "head.classify.weight") if name not in state]:
        raise CheckpointError(
            f"{path} is no EoMT segmenter: it holds {next(iter(raw))} and {len(raw) - 1} more, nothing that is "
            f"{missing[0]}; weights of a backbone alone go to luma train BACKBONE --weights FILE"
        )
    probabilities = raw.get("attn_mask_probs")
    head = HeadConfig(
        name="eomt",
        num_queries=len(state["head.queries.weight"]),
        num_classes=len(state["head.classify.weight"]) - 1,
        l2=int(config.get("num_blocks", 0 if probabilities is None else len(probabilities))),
    )
    size = _resolution(path, state, config, resolution)
    return Foreign(
        path=path,
        sha256=sha256,
        head=head,
        backbone=_backbone(path, state, size, backbone),
        resolution=size,
        normalisation=_normalisation(path, raw),
        names=_class_names(config, head.num_classes),
        state=state,
        is_delta=_is_delta(raw, state),
        num_heads=int(config.get("num_attention_heads", 0)),
        norm_eps=float(config.get("layer_norm_eps", 0)),
    )


def renamed(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an EoMT of the official code or of transformers under the names of our `Segmenter`."""
    state: dict[str, Tensor] = {}
    for key, value in raw.items():
        if not _DROPPED.search(key):
            for pattern, name in _RENAMED:
                key = pattern.sub(name, key)
            state[key] = value
    position = state.get(f"{_MODEL}pos_embed")
    if position is not None and position.ndim == 2:
        state[f"{_MODEL}pos_embed"] = position[None]
    turns = position is None
    gated = any(".mlp.gate_proj." in key for key in state)
    inner = {"up_proj": "fc1_x" if gated else "fc1", "gate_proj": "fc1_g", "down_proj": "fc2"}
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if ".attention." in key and "_proj." in key:
            found |= _packed(state, key, turns)
            continue
        key = re.sub(r"\.mlp\.(\w+_proj)\.", lambda match: f".mlp.{inner.get(match[1], match[1])}.", key)
        key = re.sub(r"\.layer_scale(\d)\.lambda1$", r".gamma_\1" if turns else r".ls\1.gamma", key)
        found[key] = value
    return found


def _packed(state: Mapping[str, Tensor], key: str, turns: bool) -> dict[str, Tensor]:
    """The tensor of timm's attention that the query's, key's or value's projection `key` is a part of."""
    before, _, part = key.partition(".attention.")
    kind = part.rpartition(".")[2]
    if kind == "bias" and turns:  # DINOv3 has none for keys, and timm keeps the others apart
        return {f"{before}.attn.{part[0]}_bias": state[key]}
    parts = [state.get(f"{before}.attention.{letter}_proj.{kind}") for letter in "qkv"]
    whole = [each for each in parts if each is not None]
    return {f"{before}.attn.qkv.{kind}": torch.cat(whole)} if part[0] == "q" else {}


def _transformers_config(path: Path) -> dict[str, Any]:
    """config.json of a transformers folder, empty for a file. Raises CheckpointError for another architecture."""
    config = _json(path / CONFIG) if path.is_dir() else {}
    named = config.get("architectures") or [config.get("model_type")]
    if path.is_dir() and named[0] not in (*_ARCHITECTURES, "eomt", "eomt_dinov3"):
        raise CheckpointError(f"{path} holds {named[0]}, expected {' or '.join(_ARCHITECTURES)}: luma reads EoMT alone")
    theta = (config.get("rope_parameters") or config).get("rope_theta", 100.0)
    if theta != 100.0 or config.get("hidden_act", "gelu") not in ("gelu", "silu"):
        raise CheckpointError(f"{path}: rope_theta or hidden_act is not that of DINOv2 and DINOv3, which luma builds")
    return config


def _json(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        values = json.loads(file.read_text(encoding="utf-8"))
        return values if isinstance(values, dict) else {}
    return {}


def _backbone(path: Path, state: Mapping[str, Tensor], resolution: int, given: str | None) -> str:
    """The timm name of the backbone that the weights fit. Raises CheckpointError where the file does not say it."""
    turns = f"{_MODEL}pos_embed" not in state
    width = state["head.queries.weight"].shape[1]
    names = [resolve(given).timm_name] if given else _released(width, turns)
    if f"{_MODEL}blocks.0.attn.q_bias" in state:  # the official code trains them, timm's plain DINOv3 has none
        names = [re.sub(r"^(vit_\w+_dinov3)(?=\.|$)(?<!_qkvb)", r"\1_qkvb", name) for name in names]
    shapes = {key.removeprefix(_MODEL): tuple(each.shape) for key, each in state.items() if key.startswith(_MODEL)}
    for name in names:
        own = create_backbone(resolve(name, imported=True), resolution, device="meta").model.state_dict()
        expected = {key: tuple(value.shape) for key, value in own.items()}
        if expected == shapes:
            return name
        key = next(key for key in sorted(expected | shapes) if expected.get(key) != shapes.get(key))
        why = f"{key} is {shapes.get(key, 'missing')}, expected {expected.get(key, 'no such name')}"
        if given:
            raise CheckpointError(f"{path} does not fit {given}: {why}; name another backbone with --backbone")
    depth = len({key.split(".")[1] for key in shapes if key.startswith("blocks.")})
    near = f"; it is not {names[-1]}: {why}" if names else ""
    raise CheckpointError(
        f"{path} has a backbone of {width} channels and {depth} blocks{near}; name it: luma import {path} --backbone "
        "NAME (`luma list` shows all)"
    )


def _released(width: int, turns: bool) -> list[str]:
    """The backbones of this width with which EoMT was released."""
    if turns:
        return [f"vit_{size}_patch16_dinov3_qkvb.lvd1689m" for size in _DINOV3.get(width, ())]
    return [f"vit_{_DINOV2[width]}_patch14_reg4_dinov2.lvd142m"] if width in _DINOV2 else []


def _resolution(path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any], given: int | None) -> int:
    """Side of the crop in pixels: of the configuration, or by the table of positions. Raises CheckpointError."""
    positions, patches = state.get(f"{_MODEL}pos_embed"), state.get(f"{_MODEL}patch_embed.proj.weight")
    said = config.get("image_size")
    found = int(said[0] if isinstance(said, list) else said) if said else 0
    if not found and positions is not None and patches is not None:
        found = isqrt(positions.shape[1]) * patches.shape[-1]
    if given and positions is not None and found != given:
        raise CheckpointError(f"{path} has positions for {found} pixels, not for {given}; leave --res out")
    if not (given or found):
        raise CheckpointError(
            f"{path} does not say its size: luma import {path} --res 512 (EoMT's for ADE20K; Cityscapes 1024)"
        )
    return given or found


def _normalisation(path: Path, raw: Mapping[str, Tensor]) -> Normalisation:
    """What the file says (the official code has ImageNet's for every backbone), else ImageNet's."""
    said = _json(path / "preprocessor_config.json") if path.is_dir() else {}
    mean, std = said.get("image_mean"), said.get("image_std")
    if mean is None and float(raw.get("encoder.pixel_mean", torch.zeros(1)).abs().sum()) > 0:
        mean, std = (raw[f"encoder.pixel_{name}"].flatten().tolist() for name in ("mean", "std"))
    if not mean or not std:
        return Normalisation()
    # float32 buffers of numbers with a few digits
    three = [tuple(float(f"{value:.6g}") for value in values) for values in (mean, std)]
    return Normalisation(three[0], three[1], f"{path.name}'s")  # type: ignore[arg-type]


def _class_names(config: Mapping[str, Any], num_classes: int) -> tuple[str, ...]:
    """Names of transformers' `id2label`, unless they are its LABEL_0 and so on."""
    labels = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    names = tuple(labels.get(index, "") for index in range(num_classes))
    return () if any(not name or name == f"LABEL_{index}" for index, name in enumerate(names)) else names


def _is_delta(raw: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> bool:
    """Whether the backbone's weights are differences: the buffers of a whole network hold ImageNet's mean.

    A file without them is judged by the final norm, whose weights are about 1 in a network and 0 in a difference.
    """
    mean = raw.get("encoder.pixel_mean")
    if mean is not None:
        return not mean.any()
    norm = state.get(f"{_MODEL}norm.weight")
    return norm is not None and float(norm.float().abs().mean()) < 0.05


def built(foreign: Foreign, base: str | None = None) -> Segmenter:
    """The segmenter on the CPU with these weights, in eval mode.

    base: file of the backbone's own weights, for a file of differences. Raises CheckpointError where it is missing or
    not needed, and where the weights do not fit, naming the first that does not.
    """
    spec = resolve(foreign.backbone, imported=True)
    segmenter = Segmenter(create_backbone(spec, foreign.resolution), foreign.head).eval()
    segmenter.backbone.normalisation = foreign.normalisation
    state = dict(foreign.state)
    if base and not foreign.is_delta:
        raise CheckpointError(f"{foreign.path} holds whole weights, to which nothing is added; leave --base out")
    if foreign.is_delta:
        own = _base_state(foreign, base)
        state |= {key: value + own[key] for key, value in state.items() if key in own}
    fill(segmenter, state, foreign.path)
    set_norm_eps(segmenter, foreign.norm_eps)
    model: Any = segmenter.backbone.model
    if foreign.num_heads not in (0, heads := model.blocks[0].attn.num_heads):
        raise CheckpointError(f"{foreign.path} has {foreign.num_heads} heads of attention, {foreign.backbone} {heads}")
    return segmenter


def _base_state(foreign: Foreign, base: str | None) -> dict[str, Tensor]:
    """The backbone's pretrained weights in our names: of a file, or found on this machine."""
    size = re.sub(r"vit_(\w+?)_patch16.*", r"\1", foreign.backbone)
    repo = f"facebook/dinov3-vit{_BASES.get(size, '?')}16-pretrain-lvd1689m"
    cached = None if base or size not in _BASES else try_to_load_from_cache(repo, "model.safetensors")
    file = base or (cached if isinstance(cached, str) else "")
    try:
        if file:
            found = renamed(read_tensors(Path(file).expanduser())[0])
            if f"{_MODEL}cls_token" in found:
                return found
        spec = resolve(foreign.backbone, imported=True)
        model = create_backbone(spec, foreign.resolution, weights=file or "pretrained").model
    except WeightsError as error:
        raise CheckpointError(
            f"{foreign.path} holds differences from the weights of {foreign.backbone}: {error}; add --base FILE, the "
            f"model.safetensors of {repo}"
        ) from error
    return {f"{_MODEL}{key}": value for key, value in model.state_dict().items()}


def set_norm_eps(segmenter: Segmenter, eps: float) -> None:
    """Give the LayerNorms of the backbone this epsilon; 0 leaves them their own."""
    for module in segmenter.backbone.modules():
        if eps and isinstance(module, nn.LayerNorm):
            module.eps = eps


def foreign_config(foreign: Foreign, data: str | None = None) -> RunConfig:
    """The configuration of a run with this model, for the classes of the dataset `data`.

    Without `data` the shipped card whose classes have the file's names. Raises CheckpointError where there is none, or
    where the number of classes or the place of a name is another.
    """
    card = load_card(data) if data else _card_of(foreign)
    if why := _difference(foreign, card):
        raise CheckpointError(f"{foreign.path} does not have the classes of {card.name}: {why}; name another --data")
    head = {"name": "eomt", "num_queries": foreign.head.num_queries, "l2": foreign.head.l2}
    given = Given(foreign.backbone, data or card.name, resolution=foreign.resolution, head=head, weights="random")
    config = new_config(given)
    file = str(foreign.path.absolute())
    recipe = replace(config.recipe, name="imported", source=f"{file}, sha256 {foreign.sha256}")
    mean, std = foreign.normalisation.mean, foreign.normalisation.std
    return replace(config, weights=file, recipe=recipe, mean=mean, std=std, norm_eps=foreign.norm_eps)


def _card_of(foreign: Foreign) -> DatasetCard:
    cards = [load_card(name) for name in card_names()]
    fits = [card for card in cards if foreign.names and not _difference(foreign, card)]
    alike = [card for card in fits if 2 * sum(_same_names(foreign.names, card.table.names)) >= len(foreign.names)]
    if not alike:
        few = f" ({', '.join(foreign.names[:3])}, ...)" if foreign.names else ""
        raise CheckpointError(
            f"{foreign.path} does not say of which dataset its {foreign.head.num_classes} classes{few} are; "
            f"add --data ade20k, cityscapes or FILE.toml: luma import {foreign.path} --data ade20k"
        )
    return alike[0]


def _same_names(ours: Iterable[str], theirs: Iterable[str]) -> Iterator[bool]:
    return (_word(one) == _word(other) for one, other in zip(ours, theirs, strict=True))


def _word(name: str) -> str:
    return re.sub(r"[\W_]", "", name.partition(",")[0].partition(";")[0].lower())


def _difference(foreign: Foreign, card: DatasetCard) -> str:
    """What is wrong with the classes of `card` for this model; names may be spelt otherwise, but not swapped."""
    if card.table.num_classes != foreign.head.num_classes:
        return f"it has {foreign.head.num_classes}, the dataset {card.table.num_classes}"
    places = {_word(name): index for index, name in enumerate(card.table.names)}
    for index, name in enumerate(foreign.names):
        if places.get(_word(name), index) != index:
            return f"its class {index} is {name!r}, the dataset's {card.table.names[index]!r}"
    return ""


def import_run(
    path: Path,
    name: str,
    data: str | None = None,
    backbone: str | None = None,
    resolution: int | None = None,
    base: str | None = None,
) -> Path:
    """The folder `runs/NAME` of a run with the weights of `path`, without an optimiser: it cannot be resumed.

    Raises CheckpointError, WeightsError as `read_foreign` and `built`; RunError where the folder is taken.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise RunError(f"--as is {name!r}, expected letters, digits, dots, _ and -")
    folder = (ROOT / name).absolute()
    run_folder.check_free(folder)
    foreign = read_foreign(path, backbone, resolution)
    config = foreign_config(foreign, data)
    segmenter = built(foreign, base)
    with run_folder.started(folder, name, config) as run:
        state = CheckpointState(name, config, 0, 0, 0, segmenter.state_dict(), {})
        save_checkpoint(run, state, best=True)
    return folder
