"""The types of one task: classes, data, head, loss, post-processing. `kind` names what `train` builds from an entry."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from .base import HW, Above0, AtLeast0, Byte, Fraction, Frozen, Name, NotNegative, Number, Positive


class _Source(Frozen):
    """Where pictures come from. A batch holds batch_size · `share` of them, rounded, at least one."""

    share: Above0 = 1.0


class SceneSource(_Source):
    """Embedded scenes, drawn on the fly: picture i is scene `seed + i`, its size cycling through `sizes`."""

    kind: Literal["scenes"]
    seed: NotNegative
    count: Positive
    sizes: Annotated[tuple[HW, ...], Field(min_length=1)] = ((720, 1280), (940, 1824), (1080, 1920), (1080, 2280))


class FolderSource(_Source):
    """A data set on disk in the project's format (COCO JSON boxes, PNG masks).

    A relative path starts at the folder of the config file.
    """

    kind: Literal["folder"]
    path: Annotated[str, Field(min_length=1)]


Source = Annotated[SceneSource | FolderSource, Field(discriminator="kind")]


class TaskData(Frozen):
    """Where a task's pictures come from. Sources that serve the same tasks are put one after the other."""

    train: Annotated[tuple[Source, ...], Field(min_length=1)]
    val: Annotated[tuple[Source, ...], Field(min_length=1)]

    def beneath(self, folder: Path) -> "TaskData":
        """The same with the relative paths of folders made absolute, starting at `folder`."""

        def absolute(source: Source) -> Source:
            if source.kind == "scenes":
                return source
            return source.model_copy(update={"path": str((folder / source.path).resolve())})

        return TaskData(train=tuple(map(absolute, self.train)), val=tuple(map(absolute, self.val)))


class ClassSpec(Frozen):
    """One class; the order of a task's classes is the order of its channels."""

    name: Annotated[str, Field(min_length=1)]
    color: tuple[Byte, Byte, Byte]


class AnchorHead(Frozen):
    """Score and delta branches on the neck's map at every stride.

    `anchors`: per stride, (h, w) of each anchor of a cell in pixels of the network's input.
    """

    kind: Literal["anchors"]
    strides: tuple[Positive, ...]
    channels: Positive
    anchors: tuple[tuple[tuple[Above0, Above0], ...], ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.anchors) != len(self.strides):
            raise ValueError(
                f"anchors has {len(self.anchors)} entries for {len(self.strides)} strides; give one per stride"
            )
        if len({len(entry) for entry in self.anchors}) != 1 or not self.anchors[0]:
            raise ValueError("every stride needs the same number of anchors, at least one")
        return self

    @property
    def anchors_per_cell(self) -> int:
        """Number of anchors per cell, the same at every stride."""
        return len(self.anchors[0])


class AnchorLoss(Frozen):
    """Focal loss of the scores over matched and unmatched anchors, smooth L1 of the deltas over matched ones."""

    kind: Literal["anchor_focal"]
    positive_iou: Fraction = 0.5
    negative_iou: Fraction = 0.4
    alpha: Fraction = 0.25
    gamma: AtLeast0 = 2.0
    delta_beta: Above0 = 0.1
    delta_weight: AtLeast0 = 1.0
    weight: Above0 = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.negative_iou > self.positive_iou:
            raise ValueError("negative_iou is above positive_iou; an anchor would be both, lower it")
        return self


class BoxPostProcessing(Frozen):
    """Attributes of DetectionPostProcessing_X2 that a user chooses.

    `score_threshold` is a probability. The build, which knows the scores' shift, turns it into the int8
    `box_filter_threshold`.
    """

    score_threshold: Annotated[Number, Field(gt=0.0, lt=1.0)] = 0.05
    nms_threshold: Byte = 179
    nms_margin: Annotated[int, Field(ge=-256, le=255, strict=True)] = -1
    nms_output_bbox_num: Annotated[int, Field(ge=1, le=1000, strict=True)] = 100
    use_clipping: Annotated[bool, Field(strict=True)] = True


class PixelHead(Frozen):
    """Class scores on the neck's map at one stride."""

    kind: Literal["pixels"]
    stride: Positive = 4
    channels: Positive


class PixelLoss(Frozen):
    """Cross-entropy over pixels; label 255 is left out. `class_weights`: one factor per class, in their order."""

    kind: Literal["cross_entropy"]
    class_weights: tuple[AtLeast0, ...] | None = None
    weight: Above0 = 1.0


class PixelPostProcessing(Frozen):
    """`channel_argmax` has no attributes."""

    kind: Literal["channel_argmax"] = "channel_argmax"


class _Task(Frozen):
    name: Name
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=1, max_length=255)]
    data: TaskData

    @model_validator(mode="after")
    def _class_names_differ(self) -> Self:
        names = [entry.name for entry in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("two classes have the same name; rename one")
        return self


class DetectionTask(_Task):
    """A branch that finds boxes."""

    kind: Literal["detection"]
    head: AnchorHead
    loss: AnchorLoss
    metric: Literal["coco_map"]
    post_processing: BoxPostProcessing

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the exported outputs, in their order."""
        return tuple(f"{self.name}.{part}_s{stride}" for stride in self.head.strides for part in ("score", "delta"))

    def deployment(self) -> dict[str, Any]:
        """The task as the compiled model's description needs it; JSON-able."""
        post = self.post_processing
        return {
            "name": self.name,
            "kind": self.kind,
            "classes": [{"name": entry.name, "color": list(entry.color)} for entry in self.classes],
            "strides": list(self.head.strides),
            "anchors": [[list(anchor) for anchor in entry] for entry in self.head.anchors],
            "score_threshold": post.score_threshold,
            "nms_threshold": post.nms_threshold,
            "nms_margin": post.nms_margin,
            "nms_output_bbox_num": post.nms_output_bbox_num,
            "use_clipping": post.use_clipping,
        }


class Relabel(Frozen):
    """Masks of another task taken for this one's, in data that does not label this one.

    `classes`: by the name of a class of this task, the classes of `task` that become it. All others become the first
    class.
    """

    task: Name
    classes: Annotated[dict[str, Annotated[tuple[str, ...], Field(min_length=1)]], Field(min_length=1)]


class SegmentationTask(_Task):
    """A branch that gives every pixel a class."""

    kind: Literal["segmentation"]
    head: PixelHead
    loss: PixelLoss
    metric: Literal["miou", "lines"]
    """`lines`: mIoU, and F1 and IoU of all classes but the first one, which is the background, taken as one."""
    without: tuple[str, ...] = ()
    """Classes that data sets know and this task does not: a pixel of one of them is ignored, one that may be of one of
    them or of others is of the others."""
    relabel: Relabel | None = None
    post_processing: PixelPostProcessing = PixelPostProcessing()

    @model_validator(mode="after")
    def _relabel_fits(self) -> Self:
        names = [entry.name for entry in self.classes]
        for name in self.relabel.classes if self.relabel is not None else ():
            if name not in names[1:]:
                raise ValueError(
                    f"relabel.classes names {name!r}; name classes of this task but its first, which is what is left "
                    f"over: {', '.join(names[1:])}"
                )
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        weights = self.loss.class_weights
        if weights is not None and len(weights) != len(self.classes):
            raise ValueError(
                f"loss.class_weights has {len(weights)} entries for {len(self.classes)} classes; give one each"
            )
        return self

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the exported outputs, in their order."""
        return (f"{self.name}.logits",)

    def deployment(self) -> dict[str, Any]:
        """The task as the compiled model's description needs it; JSON-able."""
        return {
            "name": self.name,
            "kind": self.kind,
            "classes": [{"name": entry.name, "color": list(entry.color)} for entry in self.classes],
            "stride": self.head.stride,
        }


Task = Annotated[DetectionTask | SegmentationTask, Field(discriminator="kind")]
