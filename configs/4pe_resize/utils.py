"""What all tasks of the resize variant use: network, picture sizes, loading, devices."""

from configs.common import datasets, network

variant = "resize"

# vargnet_v2_g8g8_0_5x
backbone = network.BACKBONE
neck = {"kind": "top_down", "channels": network.NECK_CHANNELS, "upscale_group_base": 8}

# Training: the shorter side becomes 540 unless the longer would exceed 1140, then a random crop.
resize_type = "min_max_pairs"
resize_hw = (540, 1140)
crop_hw = (512, 960)
# The 2x2 means of the export show pictures up to a fifth smaller than that.
augmentation = {**datasets.AUGMENTATION, "scale": (0.8, 1.1)}

# Export: 2x2 means, rows cut at the top, columns of pixel 128 at the right. multitask.py names the one to use.
geometries = [
    {
        "name": "940x1824",
        "source_hw": (940, 1824),
        "pyramid_hw": (470, 912),
        "cut_top": 22,
        "pad_right": 48,
        "height": 448,
        "width": 960,
    },
    {
        "name": "1080x1920",
        "source_hw": (1080, 1920),
        "pyramid_hw": (540, 960),
        "cut_top": 28,
        "height": 512,
        "width": 960,
    },
    {
        "name": "1080x2280",
        "source_hw": (1080, 2280),
        "pyramid_hw": (540, 1140),
        "cut_top": 28,
        "height": 512,
        "width": 1140,
    },
]

default_ctx = "cpu"  # or GPU numbers, "0,1"; `train.py --ctx` takes precedence

# Loading processes per group of data sets (more make loading faster, at the price of memory), threads of the
# computation, and how many neighbouring pictures are shuffled among themselves.
load_threads = 2
threads = 2
shuffle_chunk_size = 256
