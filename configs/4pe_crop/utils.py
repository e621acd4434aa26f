"""What all tasks of the crop variant use: network, picture sizes, loading, devices."""

from configs.common import datasets, network

variant = "crop"

# vargnet_v2_g8g4_0_5x: the larger export input affords an upscale group base of 4 only
backbone = network.BACKBONE
neck = {"kind": "top_down", "channels": network.NECK_CHANNELS, "upscale_group_base": 4}

# Training: a random crop at full resolution, for what is small and far.
resize_type = "none"
crop_hw = (448, 1216)
augmentation = datasets.AUGMENTATION

# Export: a full-resolution crop around the horizon, from the middle columns.
geometries = [
    {
        "name": "720x1280",
        "source_hw": (720, 1280),
        "pyramid_hw": (720, 1280),
        "cut_top": 104,
        "cut_left": 32,
        "height": 512,
        "width": 1216,
    },
    {
        "name": "940x1824",
        "source_hw": (940, 1824),
        "pyramid_hw": (940, 1824),
        "cut_top": 214,
        "cut_left": 304,
        "height": 448,
        "width": 1216,
    },
]

default_ctx = "cpu"  # or GPU numbers, "0,1"; `train.py --ctx` takes precedence

# Loading processes per group of data sets (more make loading faster, at the price of memory), threads of the
# computation, and how many neighbouring pictures are shuffled among themselves.
load_threads = 2
threads = 2
shuffle_chunk_size = 256
