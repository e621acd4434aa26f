"""The heads over a ladder of convolutions: two detection tasks with unlike post-processing, one segmentation task."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from configs.schema import Config
from configs.task import DetectionTask, SegmentationTask
from quant.fake import InputQuantizer, QuantConv2d, QuantTensor
from train.models.heads import AnchorDetectionHead, PixelClassHead

Maps = Mapping[int, QuantTensor]
STRIDES = (8, 16)
CHANNELS = {2: 8, 4: 8, 8: 16, 16: 24}  # of the ladder, by stride
SPARSE = {"nms_threshold": 40}
CROWDED = {"score_threshold": 0.2, "nms_threshold": 100, "nms_margin": 2, "nms_output_bbox_num": 9}


def head_tasks(config: Config) -> tuple[DetectionTask | SegmentationTask, ...]:
    """Tasks of the real config at two strides; the second one finds more boxes than it returns, and clips none."""
    tasks = []
    for name, changes in (("det_person", SPARSE), ("det_vehicle_sign", CROWDED | {"use_clipping": False})):
        task = config.task(name)
        assert isinstance(task, DetectionTask)
        head = task.head.model_copy(update={"strides": STRIDES, "anchors": task.head.anchors[:2], "channels": 16})
        processing = task.post_processing.model_copy(update=changes)
        tasks.append(task.model_copy(update={"head": head, "post_processing": processing}))
    pixels = config.task("seg_default")
    return (*tasks, pixels.model_copy(update={"head": pixels.head.model_copy(update={"channels": 16})}))


def add_heads(
    network: nn.Module,
    tasks: Sequence[DetectionTask | SegmentationTask],
    channels: Mapping[int, int],
    group_base: int,
) -> list[str]:
    """Gives a network the tasks' heads as children, each over maps of these `channels` by stride; all output names."""
    for task in tasks:
        kind = AnchorDetectionHead if isinstance(task, DetectionTask) else PixelClassHead
        network.add_module(task.name, kind(task.head, len(task.classes), channels, group_base))  # type: ignore[arg-type]
    return [name for task in tasks for name in task.output_names]


def run_heads(network: nn.Module, tasks: Sequence[DetectionTask | SegmentationTask], maps: Maps) -> tuple[Tensor, ...]:
    """The outputs of all tasks in the order of their names."""
    outputs = {}
    for task in tasks:
        outputs |= {f"{task.name}.{key}": value for key, value in getattr(network, task.name)(maps).items()}
    return tuple(outputs[name] for task in tasks for name in task.output_names)


class Heads(nn.Module):
    """Image (1, 3, H, W) to the tasks' outputs, in the order of `output_names`."""

    def __init__(self, tasks: Sequence[DetectionTask | SegmentationTask]) -> None:
        super().__init__()
        self.image = InputQuantizer()
        steps = zip((3, *CHANNELS.values()), CHANNELS.values(), strict=False)
        self.ladder = nn.ModuleList(QuantConv2d(before, after, 3, stride=2, relu=True) for before, after in steps)
        self.tasks = tuple(tasks)
        self.output_names = add_heads(self, tasks, CHANNELS, 8)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.image(image), {}
        for stride, step in zip(CHANNELS, self.ladder, strict=True):
            x = maps[stride] = step(x)
        return run_heads(self, self.tasks, maps)
