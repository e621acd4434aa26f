"""The two blocks that VarGNetV2 is built of (arXiv 1907.05653)."""

from torch import nn

from quant.fake import ElementwiseAdd, QuantConv2d, QuantTensor


class SeparableGroupConv(nn.Module):
    """3x3 convolution of groups of `group_base` input channels, which expands, with ReLU; then 1x1 to `channels_out`.

    A `residual` is added to the accumulator of the 1x1, before its ReLU and rounding.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, group_base: int, expansion: int = 2, stride: int = 1, relu: bool
    ) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.grouped = QuantConv2d(channels_in, inner, 3, stride=stride, groups=channels_in // group_base, relu=True)
        self.pointwise = QuantConv2d(inner, channels_out, relu=relu)

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
        assert self.second.pointwise.bn is not None
        nn.init.zeros_(self.second.pointwise.bn.weight)

    def forward(self, x: QuantTensor) -> QuantTensor:
        """(N, C, H, W) to (N, channels_out, ceil(H / stride), ceil(W / stride)), at least 0."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        inner = self.first(x)
        if self.twin is not None and self.merge is not None:
            inner = self.merge(inner, self.twin(x))
        return self.second(inner, shortcut)
