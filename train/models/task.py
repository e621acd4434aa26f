"""The model of one task: image, backbone, neck, and its head under the task's own name."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from configs.schema import Config
from configs.task import DetectionTask, SegmentationTask
from quant.fake import ActivationQuantizer, InputQuantizer, QuantTensor
from train.models.heads import AnchorDetectionHead, PixelClassHead
from train.models.neck import TopDownNeck
from train.models.vargnet import VarGNetV2

Head = AnchorDetectionHead | PixelClassHead


class TaskModel(nn.Module):
    """Complete model of the task `task.name`, without its loss (`train.losses`).

    Children: `image`, `backbone`, `neck`, which tasks share, and the head.
    """

    def __init__(self, config: Config, task: DetectionTask | SegmentationTask) -> None:
        super().__init__()
        backbone = config.common.backbone
        self.strides = backbone.strides
        self.task = task
        self.image = InputQuantizer()
        self.backbone = VarGNetV2(backbone)
        self.neck = TopDownNeck(config.common.neck, self.backbone.channels)
        channels = dict(zip(self.strides, config.common.neck.channels, strict=True))
        self.add_module(task.name, _head(task, channels, backbone.group_base))

    @property
    def head(self) -> Head:
        """The module under the task's name."""
        head = getattr(self, self.task.name)
        assert isinstance(head, AnchorDetectionHead | PixelClassHead)
        return head

    def maps(self, image: Tensor) -> dict[int, QuantTensor]:
        """The shared part: (N, 3, H, W) float32, (p - 128) / 128, to the neck's map at each stride."""
        return dict(zip(self.strides, self.neck(self.backbone(self.image(image))), strict=True))

    def outputs(self, maps: Mapping[int, QuantTensor]) -> dict[str, Tensor]:
        """The task's own part: outputs by their exported names."""
        return {f"{self.task.name}.{key}": value for key, value in self.head(maps).items()}

    def output_shifts(self) -> dict[str, int]:
        """Shift of each output, by its exported name."""
        quantizers = self.head.output_quantizers()
        return {name: int(_quantizer_of(name, quantizers).shift) for name in self.task.output_names}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) float32, (p - 128) / 128, to the task's outputs by their exported names."""
        return self.outputs(self.maps(image))


def _head(task: DetectionTask | SegmentationTask, channels: Mapping[int, int], group_base: int) -> Head:
    if isinstance(task, DetectionTask):
        return AnchorDetectionHead(task.head, len(task.classes), channels, group_base)
    return PixelClassHead(task.head, len(task.classes), channels, group_base)


def _quantizer_of(name: str, quantizers: Sequence[tuple[str, ActivationQuantizer]]) -> ActivationQuantizer:
    part = name.rpartition(".")[2]
    return next(quantizer for prefix, quantizer in quantizers if part.startswith(prefix))
