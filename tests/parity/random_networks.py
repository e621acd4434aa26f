"""Small networks drawn by hypothesis: stages of the network's blocks, its neck, its heads, in all sizes.

Heavy-tailed weights, dead channels, shifts that saturate. Those with boxes and those without have a test file each, so
that two processes share them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, event, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from configs.schema import Config, Neck
from configs.task import DetectionTask, SegmentationTask
from quant.certificate import CertificateError
from quant.fake import InputQuantizer, QuantConv2d
from tests.parity.harness import Parties
from tests.parity.head_cases import add_heads, run_heads
from tests.parity.parts import fold, freeze, kill_channels, pictures, randomize
from tests.parity.trial import Trial
from train.models.blocks import SeparableGroupConv, VarGBlock
from train.models.neck import TopDownNeck

FIRST_STRIDE = 4
# A network takes seconds: no shrinking, the drawn one is small enough to be looked at.
EXAMPLES = settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=(HealthCheck.too_slow,),
    print_blob=True,
)


@dataclass(frozen=True)
class Stage:
    """One stage: its first block halves the map."""

    channels: int
    kind: str  # of the first block
    more_blocks: int
    expansion: int


@dataclass(frozen=True)
class Spec:
    """A network with its weights; `hw` is the picture's size."""

    hw: tuple[int, int]
    group_base: int
    stem: int
    stages: tuple[Stage, ...]
    neck: tuple[int, ...]
    neck_group_base: int
    head: int
    detection: bool
    seed: int
    tail: float
    dead: float
    too_fine: float


@st.composite
def specs(draw: st.DrawFn, *, detection: bool) -> Spec:
    """Networks of pixel classes and, with `detection`, boxes."""
    group_base, neck_group_base = draw(st.sampled_from((1, 2, 4, 8))), draw(st.sampled_from((1, 2, 4)))
    channels = st.integers(1, 3).map(lambda factor: factor * max(group_base, 4))
    kinds = st.sampled_from(("plain", "merge", "separable"))
    stages = st.lists(
        st.builds(Stage, channels, kinds, st.integers(0, 1), st.integers(1, 2)), min_size=2, max_size=3
    ).map(tuple)
    drawn = draw(stages)
    neck_channels = st.integers(1, 4).map(lambda factor: factor * 8)
    return Spec(
        hw=draw(st.tuples(st.integers(17, 90), st.integers(17, 90))),
        group_base=group_base,
        stem=draw(channels),
        stages=drawn,
        neck=tuple(draw(neck_channels) for _ in drawn),
        neck_group_base=neck_group_base,
        head=draw(st.sampled_from((8, 16))),
        detection=detection,
        seed=draw(st.integers(0, 2**32 - 1)),
        tail=draw(st.sampled_from((2.0, 3.0, 30.0))),
        dead=draw(st.sampled_from((0.0, 0.1, 0.3))),
        too_fine=draw(st.sampled_from((0.0, 0.5, 1.0))),
    )


class RandomNetwork(nn.Module):
    """Image (1, 3, H, W) to the outputs of `tasks`, in the order of `output_names`."""

    def __init__(self, spec: Spec, config: Config) -> None:
        super().__init__()
        self.image = InputQuantizer()
        self.stem = QuantConv2d(3, spec.stem, 3, stride=2)
        self.stages = nn.ModuleList()
        before = spec.stem
        for stage in spec.stages:
            self.stages.append(_stage(stage, before, spec.group_base))
            before = stage.channels
        neck = Neck(kind="top_down", channels=spec.neck, upscale_group_base=spec.neck_group_base)
        self.neck = TopDownNeck(neck, [stage.channels for stage in spec.stages])
        self.strides = [FIRST_STRIDE << index for index in range(len(spec.stages))]
        self.tasks = _tasks(spec, config, self.strides)
        self.output_names = add_heads(self, self.tasks, dict(zip(self.strides, spec.neck, strict=True)), 8)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.stem(self.image(image)), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return run_heads(self, self.tasks, dict(zip(self.strides, self.neck(maps), strict=True)))


def _stage(stage: Stage, channels_in: int, group_base: int) -> nn.Sequential:
    first: nn.Module
    if stage.kind == "separable":
        first = SeparableGroupConv(
            channels_in, stage.channels, group_base=group_base, expansion=stage.expansion, stride=2, relu=True
        )
    else:
        first = VarGBlock(
            channels_in,
            stage.channels,
            group_base=group_base,
            expansion=stage.expansion,
            stride=2,
            merge=stage.kind == "merge",
        )
    more = (VarGBlock(stage.channels, stage.channels, group_base=group_base) for _ in range(stage.more_blocks))
    return nn.Sequential(first, *more)


def _tasks(spec: Spec, config: Config, strides: list[int]) -> tuple[DetectionTask | SegmentationTask, ...]:
    """Pixel classes at the finest stride; boxes, if drawn, at the others."""
    pixels, boxes = config.task("seg_lane"), config.task("det_vehicle_sign")
    tasks = [pixels.model_copy(update={"head": pixels.head.model_copy(update={"channels": spec.head})})]
    if spec.detection:
        assert isinstance(boxes, DetectionTask)
        anchors = boxes.head.anchors[: len(strides) - 1]
        changes = {"strides": tuple(strides[1:]), "anchors": anchors, "channels": spec.head}
        tasks.append(boxes.model_copy(update={"head": boxes.head.model_copy(update=changes)}))
    return tuple(tasks)


def build(spec: Spec, config: Config) -> RandomNetwork:
    """The network with its weights, folded, frozen and snapped. CertificateError where its sums are too large."""
    network, rng = RandomNetwork(spec, config), np.random.default_rng(spec.seed)
    sample = pictures(spec.hw, 1, seed=spec.seed)[0]
    randomize(network, rng, sample, tail=spec.tail)
    fold(network)
    kill_channels(network, rng, spec.dead)
    freeze(network, rng, sample, too_fine=spec.too_fine)
    return network


def check(spec: Spec, config: Config, folder: Path) -> None:
    """Runs it through all parties: they agree, unless the certificate refuses it or it hardly rounds anything."""
    try:
        network = build(spec, config)
    except CertificateError:
        event("refused by the certificate")
        reject()
    tasks = [task.deployment() for task in network.tasks]
    parties = Parties(network, spec.hw, network.output_names, folder, tasks)
    im_hw = (spec.hw[0] - 3, spec.hw[1] - 5) if spec.detection else None
    trial = Trial.of(parties, pictures(spec.hw, seed=spec.seed), im_hw)
    assert trial.first_differences() == []
    strengths = list(trial.strengths().values())
    total = sum(strengths[1:], strengths[0])
    event(f"{total.saturated:.0%} saturated")
    if min(total.even_ties, total.odd_ties) == 0:
        event("too dead to tell one rounding from another")
        reject()
