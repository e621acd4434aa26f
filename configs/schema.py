"""The frozen, validated types of a config.

Sizes are (height, width) in pixels, colours RGB. The checks here and in `task.py` are those that one entry can
make alone; `configs/__init__.py` adds the names of the files, `configs/checks.py` checks across entries.
"""

from collections import Counter
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AliasChoices, Field, model_validator

from .base import HW, Above0, AtLeast0, Fraction, Frozen, NotNegative, Positive
from .task import DetectionTask, SegmentationTask, Source, Task

PREFIXES = ("with-bn", "fusion-bn-c1", "fusion-bn-c2", "int-inference")
"""File name prefix of each step, by its index."""
IGNORE_LABEL = 255
"""In a segmentation label: this pixel's class is not known."""


class TrainingStep(Frozen):
    """One of the steps 0, 1, 2. Fractions are of the step's iterations."""

    mode: Literal["kFloatTraining", "kTrainingWithBN", "kTrainingWithoutBN"]
    epochs: Positive
    iterations_per_epoch: Positive | None = None
    """By default as many as it takes to go through the group of sources that takes longest; fewer where a large set
    would make epochs too long for a short step."""
    batch_size: Positive
    learning_rate: Above0
    warmup_fraction: Fraction = 0.03
    weight_decay: AtLeast0 = 1e-4
    gradient_clip: Above0 = 10.0
    freeze_fraction: Fraction = 0.0
    """Share of the step, at its end, in which shifts and the statistics of batch norms are frozen: training ends on the
    graph that is folded or ships. 1 is all of it but the first iteration, which chooses the shifts of what was
    absorbed."""
    quant_delay: Fraction = 0.0
    """Of kTrainingWithBN: share of the step, at its beginning, that trains in float, from which quantization training
    goes on along the same schedule."""

    @property
    def begins_in_float(self) -> bool:
        """Whether its first iterations are not fake-quantized."""
        return self.mode == "kFloatTraining" or self.quant_delay > 0


class IntInferenceStep(Frozen):
    """Step 3: nothing is trained."""

    mode: Literal["kIntInference"]


class PipelineTest(Frozen):
    """What `--pipeline-test` puts in place of the solver's numbers; it trains on the validation data."""

    epochs: Positive = 1
    iterations_per_epoch: Positive = 4
    batch_size: Positive = 2
    pictures: Positive = 8


class Env(Frozen):
    """How a run behaves, apart from what it computes."""

    seed: NotNegative = 1
    log_every: Positive = 10
    float_precision: Literal["float32", "bfloat16"] = "float32"
    """Of training in float only, and where the processor has it: fake-quantized training is always float32, or its
    sums would not be exact."""
    shifts: Literal["observed", "learned"] = "observed"
    """Of activations inside the network: those that moving averages find best, or thresholds trained by gradients."""


class Augmentation(Frozen):
    """Random changes of training pictures. Brightness, contrast and saturation are half-widths of a factor around 1."""

    flip_probability: Fraction = 0.5
    scale: tuple[Above0, Above0] = (1.0, 1.0)
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    saturation: Fraction = 0.0


class Backbone(Frozen):
    """VarGNetV2: `channels` at strides 2, 4, 8, 16, 32, `blocks` in the stages at strides 4, 8, 16, 32.

    `extended` holds (channels, blocks) of a stage at stride 64 and, if given twice, of one at 128.
    """

    kind: Literal["vargnet_v2"]
    channels: Annotated[tuple[Positive, ...], Field(min_length=5, max_length=5)]
    blocks: Annotated[tuple[Positive, ...], Field(min_length=4, max_length=4)]
    extended: Annotated[tuple[tuple[Positive, Positive], ...], Field(max_length=2)]
    group_base: Positive
    expansion: Positive = 2
    stem_expansion: Positive = 1

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        for channels in (*self.channels, *(entry[0] for entry in self.extended)):
            if channels % self.group_base:
                raise ValueError(
                    f"{channels} channels are no multiple of group_base {self.group_base}; change one of them"
                )
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the maps that the backbone returns: 4 to 32 and those of the extended stages."""
        return tuple(4 << index for index in range(4 + len(self.extended)))


class Neck(Frozen):
    """Top-down path; `channels` of its maps at strides 4, 8, 16, … as many as the backbone returns."""

    kind: Literal["top_down"]
    channels: tuple[Positive, ...]
    upscale_group_base: Positive

    @model_validator(mode="after")
    def _groups_divide(self) -> Self:
        for channels in self.channels:
            if channels % self.upscale_group_base:
                raise ValueError(
                    f"{channels} channels are no multiple of upscale_group_base {self.upscale_group_base}; change one"
                )
        return self


class Geometry(Frozen):
    """How a source picture becomes the input of the exported model: 2x2 means (or none), cut, pad with pixel 128."""

    name: str
    source_hw: HW
    pyramid_hw: HW
    cut_top: NotNegative = 0
    cut_left: NotNegative = 0
    pad_right: NotNegative = 0
    height: Positive
    width: Positive


class Common(Frozen):
    """What all tasks use: `utils.py`."""

    variant: Literal["resize", "crop"]
    backbone: Backbone
    neck: Neck
    resize_type: Literal["min_max_pairs", "none"]
    resize_hw: HW | None = None
    crop_hw: HW
    augmentation: Augmentation
    geometries: Annotated[tuple[Geometry, ...], Field(min_length=1)]
    default_ctx: Annotated[str, Field(pattern=r"^(cpu(,cpu)*|\d+(,\d+)*)$")] = "cpu"
    load_threads: Positive = 2
    threads: Positive = 2
    shuffle_chunk_size: Positive = Field(
        default=256, validation_alias=AliasChoices("shuffle_chunk_size", "shuffle_chunck_size")
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.resize_type == "none") != (self.resize_hw is None):
            raise ValueError("resize_hw belongs to resize_type 'min_max_pairs' and only to it; give both or neither")
        if len(self.neck.channels) != len(self.backbone.strides):
            raise ValueError(
                f"neck.channels has {len(self.neck.channels)} entries, the backbone returns maps at strides "
                f"{self.backbone.strides}; give one entry per stride"
            )
        return self


class ExportInputShape(Frozen):
    """Inputs of step 3: the picture, uint8 (1, H, W, 3), and, where boxes are found, the picture's size (1, 2).

    `image` is that shape, or the name of the geometry that gives it.
    """

    image: tuple[Literal[1], Positive, Positive, Literal[3]] | Annotated[str, Field(min_length=1)]
    im_hw: tuple[Literal[1], Literal[2]] | None = None


class DataGroup(NamedTuple):
    """Sources, all of one share, that serve the same tasks."""

    tasks: tuple[str, ...]
    sources: tuple[Source, ...]
    share: float


class Config(Frozen):
    """A whole config: `multitask.py` with the `utils.py` and the task files that it names."""

    file: str
    solver: tuple[TrainingStep, TrainingStep, TrainingStep, IntInferenceStep]
    pipeline_test: PipelineTest
    env: Env
    fusion_bn_patterns: dict[Annotated[int, Field(ge=1, le=2)], Annotated[tuple[str, ...], Field(min_length=1)]]
    int_inference_export_input_shape: ExportInputShape
    common: Common
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]

    @property
    def input_hw(self) -> tuple[int, int]:
        """(H, W) of the exported model's input."""
        image = self.int_inference_export_input_shape.image
        return (self.geometry.height, self.geometry.width) if isinstance(image, str) else image[1:3]

    @property
    def geometry(self) -> Geometry:
        """The export geometry that `int_inference_export_input_shape` names, or the first one of its size."""
        image = self.int_inference_export_input_shape.image
        return next(
            entry for entry in self.common.geometries if image in (entry.name, (1, entry.height, entry.width, 3))
        )

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of all exported outputs, in their order."""
        return tuple(name for task in self.tasks for name in task.output_names)

    def training_step(self, step: int) -> TrainingStep:
        """The solver's entry of one of the steps 0 to 2."""
        return self.solver[:3][step]

    def task(self, name: str) -> DetectionTask | SegmentationTask:
        """The task of that name; KeyError if there is none."""
        return {task.name: task for task in self.tasks}[name]

    def data_groups(self, split: Literal["train", "val"]) -> tuple["DataGroup", ...]:
        """The sources of a split by the tasks that they serve: pictures of one group have labels of the same tasks.

        A source that several tasks name is one source; named twice by a task it comes up twice.
        """
        owners: dict[tuple[Source, int], list[str]] = {}
        for task in self.tasks:
            counts: Counter[Source] = Counter()
            for source in getattr(task.data, split):
                owners.setdefault((source, counts[source]), []).append(task.name)
                counts[source] += 1
        groups: dict[tuple[tuple[str, ...], float], list[Source]] = {}
        for (source, _), names in owners.items():
            groups.setdefault((tuple(names), source.share), []).append(source)
        return tuple(DataGroup(names, tuple(sources), share) for (names, share), sources in groups.items())

    def deployment(self) -> dict[str, Any]:
        """What the compiled model's description takes from the config; JSON-able."""
        geometry = self.geometry.model_dump(mode="json")
        geometry["geometry"] = geometry.pop("name")
        return {
            "input": {**geometry, "variant": self.common.variant},
            "uses_im_hw": self.int_inference_export_input_shape.im_hw is not None,
            "tasks": [task.deployment() for task in self.tasks],
        }

    def resolved(self) -> str:
        """The config with every default filled in, as JSON text: printed and saved with a run."""
        return self.model_dump_json(indent=2)
