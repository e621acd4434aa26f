"""The two blocks that VarGNetV2 is built of (arXiv 1907.05653)."""

from torch import nn

from quant.fake import ElementwiseAdd, QuantConv2d, QuantTensor
from quant.observer import ErrorObserver, Observer

NEARLY_LINEAR = {"weight": 0.25, "bias": 0.5}  # of a batch norm


def begin_nearly_linear(*units: QuantConv2d) -> None:
    """Puts the first outputs of batch norms two deviations above 0, where the ReLU behind them, or behind the sum that
    they are added in, passes nearly all.

    For the units that a new network passes a picture through. Where values lie evenly about 0, batch norm and ReLU
    amplify small errors by pi / (pi - 1) in power (arXiv 1902.08129), layer after layer: of int8's 30 dB a network that
    has hardly learned leaves 10. Both numbers are small, so that training can soon leave that state (decision 0026).
    """
    for unit in units:
        unit.start_batch_norm(**NEARLY_LINEAR)


class SeparableGroupConv(nn.Module):
    """3x3 convolution of groups of `group_base` input channels, which expands, with ReLU; then 1x1 to `channels_out`.

    A `residual` is added to the accumulator of the 1x1, before its ReLU and rounding. `observer` is that of its result.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        group_base: int,
        expansion: int = 2,
        stride: int = 1,
        relu: bool,
        observer: type[Observer] = ErrorObserver,
    ) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.grouped = QuantConv2d(channels_in, inner, 3, stride=stride, groups=channels_in // group_base, relu=True)
        self.pointwise = QuantConv2d(inner, channels_out, relu=relu, observer=observer)

    def forward(self, x: QuantTensor, residual: QuantTensor | None = None) -> QuantTensor:
        """(N, C, H, W) to (N, channels_out, ceil(H / stride), ceil(W / stride))."""
        return self.pointwise(self.grouped(x), residual)


class VarGBlock(nn.Module):
    """Two separable group convolutions and a shortcut, added before the last ReLU.

    With stride 2 or a change of channels the shortcut is a separable group convolution of its own. With `merge` the
    first convolution has a twin, and the sum of the two goes on.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        group_base: int,
        expansion: int = 2,
        stride: int = 1,
        merge: bool = False,
    ) -> None:
        super().__init__()

        def branch(channels: int, step: int, relu: bool) -> SeparableGroupConv:
            return SeparableGroupConv(
                channels, channels_out, group_base=group_base, expansion=expansion, stride=step, relu=relu
            )

        changes = stride != 1 or channels_in != channels_out
        self.shortcut = branch(channels_in, stride, relu=False) if changes else None
        self.first = branch(channels_in, stride, relu=not merge)
        self.twin = branch(channels_in, stride, relu=False) if merge else None
        self.merge = ElementwiseAdd(relu=True) if merge else None
        self.second = branch(channels_out, 1, relu=True)
        # A block begins as its shortcut alone (arXiv 1706.02677, 5.1). Else gradients grow by 10^4 from the heads to
        # the stem, and rounding errors of the forward pass with them.
        self.second.pointwise.start_batch_norm(weight=0.0, bias=0.0)
        if self.shortcut is not None:
            begin_nearly_linear(self.shortcut.grouped, self.shortcut.pointwise)

    def forward(self, x: QuantTensor) -> QuantTensor:
        """(N, C, H, W) to (N, channels_out, ceil(H / stride), ceil(W / stride)), at least 0."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        inner = self.first(x)
        if self.twin is not None and self.merge is not None:
            inner = self.merge(inner, self.twin(x))
        return self.second(inner, shortcut)
