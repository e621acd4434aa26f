"""One training step from request to export: what `train.train` does once its arguments are read."""

from dataclasses import dataclass
from pathlib import Path

import torch

from configs.schema import Config
from quant.fake import use_exact_convolutions
from runtime.files import write_atomically
from train.checkpoint import Checkpoint, load_checkpoint, seed_random_state
from train.circumstances import note_circumstances
from train.devices import has_bfloat16, make_fabric
from train.engines import load_predictor
from train.export import export_onnx
from train.feed import Feed
from train.gallery import write_validation_mosaic
from train.loop import StepTrainer
from train.plots import plot_results
from train.progress import Reporter
from train.run import Run, enter, identity, previous_checkpoint
from train.schedule import Plan, make_plan
from train.steps import Prepared, prepare
from train.transfer import take_weights
from train.validation import validation_sets


@dataclass(frozen=True)
class Request:
    """Train `step` of `config` in `folder`. `seed` decides on weights, order and augmentation; step 0 may begin with
    the weights of the checkpoint `init`.
    """

    config: Config
    step: int
    folder: Path
    pipeline_test: bool
    ctx: str
    resume: bool
    seed: int
    init: Path | None = None
    quiet: bool = False


def train_step(request: Request) -> None:
    """Trains and exports, or continues, or sees that all is done. Errors of `train.errors`; Interrupted on Ctrl-C."""
    config, step, run = request.config, request.step, Run(request.folder)
    use_exact_convolutions()
    torch.set_num_threads(config.common.threads)
    settings = config.training_step(step)
    wanted = settings.begins_in_float and config.env.float_precision == "bfloat16"
    bfloat16 = wanted and has_bfloat16(request.ctx)
    resting = config.env.shifts == "learned" and settings.quant_delay > 0  # thresholds, until quantization begins
    fabric = make_fabric(request.ctx, bfloat16=bfloat16, resting=resting)
    fabric.launch()
    mine = identity(
        config,
        pipeline_test=request.pipeline_test,
        seed=request.seed,
        processes=fabric.world_size,
        init=request.init,
    )
    state, start = enter(run, step, mine, resume=request.resume)
    fabric.barrier()  # every process has looked at the folder before the first one changes it
    if state == "finished":
        _say(request, f"step {step} is finished: {run.last(step)}")
        if fabric.is_global_zero:
            _complete(config, run, step)
        return
    validation_sets(config)  # what is wrong with them is better known before training than after it
    before = previous_checkpoint(run, step, pipeline_test=request.pipeline_test)
    seed_random_state(_mix(request.seed, step))
    prepared = prepare(config, step, start=start, before=before)
    begun_with = take_weights(prepared.network.network, request.init) if request.init and start is None else None
    feed = Feed(config, step, pipeline_test=request.pipeline_test, seed=request.seed, fabric=fabric)

    def plan_of(number: int) -> Plan:
        per_epoch = feed.iterations_per_epoch
        return make_plan(config, number, pipeline_test=request.pipeline_test, iterations_per_epoch=per_epoch)

    plan = plan_of(step)
    if fabric.is_global_zero:
        run.sweep(step)
        if state == "fresh":
            run.clear(step)
            write_atomically(run.folder / "config.json", (config.resolved() + "\n").encode())
        note_circumstances(run.folder / "run.json", step, seed=request.seed, ctx=request.ctx, bfloat16=bfloat16)
    reporter = Reporter(
        plan,
        0 if start is None else int(start.progress["iteration"]),
        log_every=config.env.log_every,
        later=[plan_of(number) for number in range(step + 1, 3)],
        folder=run.folder,
        quiet=request.quiet or not fabric.is_global_zero,
    )
    reporter.say(_headline(prepared, plan.iterations, run, start))
    if wanted and not bfloat16:
        reporter.say("this processor has no bfloat16: trains in float32")
    if begun_with:
        reporter.say(begun_with)
    facts = {
        "identity": mine,
        "step": step,
        "prefix": plan.prefix,
        "mode": settings.mode,
        "absorbed": prepared.absorbed,
    }
    batches = feed.batches(plan.batch_size)
    try:
        StepTrainer(fabric, prepared.network, batches, plan, run, facts, reporter).train(start)
        if fabric.is_global_zero:
            reporter.say(export_step(config, run, step))
            reporter.say(draw_step(config, run, step))
    finally:
        reporter.close()
    fabric.barrier()


def _complete(config: Config, run: Run, step: int) -> None:
    """What a finished step's folder still lacks after a kill: the export, then curves and pictures."""
    if not run.export(step).is_file():
        export_step(config, run, step)
    if not run.mosaic(step).is_file():
        draw_step(config, run, step)


def export_step(config: Config, run: Run, step: int) -> str:
    """Exports the step's last checkpoint; returns a line for the user."""
    checkpoint = load_checkpoint(run.last(step))
    model = prepare(config, step, start=checkpoint, before=None).export_model()
    path = run.export(step)
    exact = export_onnx(model, config.input_hw, config.output_names, path)
    return f"wrote {path}" + (": torch and ONNX Runtime return the same bits" if exact else "")


def draw_step(config: Config, run: Run, step: int) -> str:
    """Learning curves so far, and what the exported model finds in validation pictures; returns a line for the user."""
    curves, mosaic = run.folder / "results.png", run.mosaic(step)
    plot_results(run.folder / "results.csv", curves)
    write_validation_mosaic(load_predictor(run.export(step), config), config, mosaic)
    return f"wrote {curves} and {mosaic}"


def _headline(prepared: Prepared, iterations: int, run: Run, start: Checkpoint | None) -> str:
    text = f"{prepared.prefix} ({prepared.mode}) in {run.folder}: {iterations} iterations, {prepared.summary}"
    if start is not None:
        text += f"; continuing after iteration {start.progress['iteration']}"
    return text


def _mix(seed: int, step: int) -> int:
    """Steps draw different random numbers from one seed."""
    return seed * 4 + step


def _say(request: Request, text: str) -> None:
    if not request.quiet:
        print(text)
