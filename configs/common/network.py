"""VarGNetV2 at half width with the extended stage at stride 64, and the neck over it (arXiv 1907.05653)."""

CHANNELS = (16, 16, 32, 64, 128)  # [32, 32, 64, 128, 256] · 0.5 at strides 2, 4, 8, 16, 32
BLOCKS = (1, 3, 7, 4)  # at strides 4, 8, 16, 32
EXTENDED = ((128, 2),)  # (channels, blocks) at stride 64
GROUP_BASE = 8

BACKBONE = {
    "kind": "vargnet_v2",
    "channels": CHANNELS,
    "blocks": BLOCKS,
    "extended": EXTENDED,
    "group_base": GROUP_BASE,
}
NECK_CHANNELS = (32, 64, 64, 128, 128)  # at strides 4, 8, 16, 32, 64
BOX_CHANNELS = 64
PIXEL_CHANNELS = 32
