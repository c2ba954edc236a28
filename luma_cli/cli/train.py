"""`luma train`: fine-tune a backbone with a head on a dataset, in a run that can be stopped and resumed."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from luma_cli.cli.options import (
    L2,
    Adapter,
    Compile,
    Database,
    FfnChoice,
    Head,
    Import,
    Json,
    LayerScale,
    Masked,
    MaskStride,
    NoPixelDecoder,
    Prefix,
    QkvBias,
    Queries,
    QueryNorm,
    ReadNormChoice,
    SingleScale,
    TapSide,
    Variant,
    complete_backbone,
    given_options,
)
from luma_cli.errors import UsageError


class TrainDtype(StrEnum):
    """Number formats of a training's passes; weights and updates are always float32."""

    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


def train(
    backbone: Annotated[
        str | None,
        typer.Argument(
            help="Card (vit_b.dinov3) or timm name; a resumed run knows its own.", autocompletion=complete_backbone
        ),
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="ade20k, cityscapes or a dataset FILE.toml.")] = None,
    root: Annotated[
        str | None,
        typer.Option("--root", help="Folder with the archives or files. \\[default: $LUMA_DATA or luma.toml]"),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option("--res", help="Side of crop and window in pixels. \\[default: 512]")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="pretrained (downloaded as needed), random, FILE, local-dir:FOLDER, hf-hub:OWNER/REPO."
            " \\[default: the card's pretraining; random for test_* alone]",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Name or FILE.toml. \\[default: the dataset's own for this head]")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the recipe, e.g. lr=2e-4; may repeat.")
    ] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="As --set epochs=.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="As --set steps=, instead of epochs.")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="Images per step over all GPUs and passes. \\[default: 16]")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option("--accumulate", help="Passes per step. \\[default: as few as fit into memory]")
    ] = None,
    dtype: Annotated[
        TrainDtype | None, typer.Option("--dtype", help="Number format of the passes; auto: bf16 where the GPU has it.")
    ] = None,
    compile_mode: Annotated[Compile | None, typer.Option("--compile", help="Mode of torch.compile.")] = None,
    grad_checkpoint: Annotated[
        bool | None, typer.Option("--grad-checkpoint", help="Compute activations twice instead of keeping them.")
    ] = None,
    freeze: Annotated[int | None, typer.Option("--freeze", help="As --set freeze=: first blocks that rest.")] = None,
    patience: Annotated[
        int | None, typer.Option("--patience", help="As --set patience=: end after so many validations without gain.")
    ] = None,
    freeze_backbone: Annotated[bool, typer.Option("--freeze-backbone", help="Train the head alone: a probe.")] = False,
    ema: Annotated[
        float | None, typer.Option("--ema", help="Decay of averaged weights, e.g. 0.9998, which are then evaluated.")
    ] = None,
    head: Annotated[Head | None, typer.Option("--head", help="Head that is trained. \\[default: luma]")] = None,
    queries: Queries = None,
    l2: L2 = None,
    tap: TapSide = None,
    prefix: Prefix = None,
    ffn: FfnChoice = None,
    variant: Variant = None,
    mask_stride: MaskStride = None,
    layer_scale: LayerScale = None,
    qkv_bias: QkvBias = None,
    read_norm: ReadNormChoice = None,
    query_norm: QueryNorm = None,
    adapter: Adapter = None,
    no_pixel_decoder: NoPixelDecoder = None,
    single_scale: SingleScale = None,
    masked: Masked = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of weights, order, augmentation and draws. \\[default: 0]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that load images, per GPU. \\[default: by the CPU cores]")
    ] = None,
    skip_bad: Annotated[
        int | None, typer.Option("--skip-bad", help="Bad files to leave out and count before giving up. \\[default: 0]")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    gpus: Annotated[int | None, typer.Option("--gpus", help="GPUs of this machine to train on, by torchrun.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder. \\[default: runs/RUN]")] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", help="Checkpoints that are kept besides the best. \\[default: 2]")
    ] = None,
    checkpoint_steps: Annotated[
        int | None,
        typer.Option("--checkpoint-steps", help="Steps between checkpoints. \\[default: epoch, at most 1000]"),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="TensorBoard files too (extra: log).")] = False,
    init: Annotated[
        str | None,
        typer.Option("--init", help="RUN, checkpoint or weights file of luma: start from this trained segmenter."),
    ] = None,
    class_layer: Annotated[
        bool, typer.Option("--class-layer/--no-class-layer", help="With --init: keep its class layer, or draw it anew.")
    ] = True,
    resume: Annotated[str | None, typer.Option("--resume", help="RUN, its folder, or latest: go on with it.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be trained, its memory, time and energy, and stop.")
    ] = False,
    imports: Import = None,
    as_json: Json = False,
    database: Database = None,
) -> None:
    """Fine-tune a backbone with a head, validate it after every epoch and keep every number.

    A run can be stopped at any time, by Ctrl-C, SIGTERM or SIGUSR1, and goes on with `--resume` as if it had not been.
    """
    from luma_cli.train.config import Given, Settings
    from luma_cli.train.runs import refuse_early

    spelled = _changes(
        epochs=epochs,
        steps=steps,
        batch=batch,
        ema_decay=ema,
        dtype=dtype and dtype.value,
        freeze=freeze,
        patience=patience,
    )
    given = Given(
        backbone=backbone,
        data=data,
        root=root,
        resolution=resolution,
        weights=weights,
        recipe=recipe,
        changes=(*(changes or ()), *spelled, *(["freeze_backbone=true"] if freeze_backbone else [])),
        head=given_options(
            head,
            queries=queries,
            l2=l2,
            tap=tap,
            prefix=prefix,
            ffn=ffn,
            variant=variant,
            mask_stride=mask_stride,
            layer_scale=layer_scale,
            qkv_bias=qkv_bias,
            read_norm=read_norm,
            query_norm=query_norm,
            adapter=adapter,
            no_pixel_decoder=no_pixel_decoder,
            single_scale=single_scale,
            masked=masked,
        ),
        seed=seed,
        accumulate=accumulate,
        grad_checkpoint=grad_checkpoint,
        compile=compile_mode,
        skip_bad=skip_bad,
        imports=(imports,) if imports else (),
        init=init,
        class_layer=class_layer,
    )
    settings = Settings(
        device=device,
        num_workers=workers,
        out=out,
        keep=keep,
        checkpoint_steps=checkpoint_steps,
        tensorboard=tensorboard,
        resume=resume or "",
        database=database,
    )
    refuse_early(given, settings)
    if gpus is not None:
        from luma_cli.train.processes import run_torchrun

        raise typer.Exit(run_torchrun(sys.argv[1:], gpus))
    from luma_cli.data.decode import keep_freed_memory
    from luma_cli.report.progress import TrainingProgress
    from luma_cli.train.run import train_run

    keep_freed_memory()
    with TrainingProgress(sys.stderr) as progress:
        if dry_run:
            from luma_cli.report.estimates import print_estimate
            from luma_cli.train.estimate import estimate_run

            print_estimate(estimate_run(given, settings, progress), as_json)
            return
        outcome = train_run(given, settings, progress)
    if outcome.is_first and as_json:
        print(json.dumps(outcome.to_json(), indent=1, allow_nan=False))
    elif outcome.is_first:
        print(outcome.summary(), file=sys.stderr if outcome.exit_code else sys.stdout)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _changes(**shortcuts: float | str | None) -> list[str]:
    """The options that stand for settings of the recipe, as --set takes them; steps and epochs exclude each other."""
    given = {name: value for name, value in shortcuts.items() if value is not None}
    if "epochs" in given and "steps" in given:
        raise UsageError("--epochs and --steps are both given, expected one of them; leave one out")
    other = {"epochs": {"steps": 0}, "steps": {"epochs": 0}}
    cleared = {key: value for name in given for key, value in other.get(name, {}).items()}
    return [f"{name}={value}" for name, value in (cleared | given).items()]
