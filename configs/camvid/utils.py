"""What all tasks use: network, picture sizes, loading, devices."""

from configs.common import datasets, network

from . import sets

variant = "resize"

# vargnet_v2_g8g8_0_5x
backbone = network.BACKBONE
neck = {"kind": "top_down", "channels": network.NECK_CHANNELS, "upscale_group_base": 8}

# Training: CamVid's own size, then a random crop of a picture between three quarters and seven quarters of it.
resize_type = "min_max_pairs"
resize_hw = sets.SIZE
crop_hw = (320, 448)
augmentation = {**datasets.AUGMENTATION, "scale": (0.75, 1.75)}

# Export: the picture as it is.
geometries = [
    {"name": "360x480", "source_hw": sets.SIZE, "pyramid_hw": sets.SIZE, "height": 360, "width": 480},
]

default_ctx = "cpu"  # or GPU numbers, "0,1"; `train.py --ctx` takes precedence

# Loading processes per group of data sets, of which there are three; threads of the computation; how many neighbouring
# pictures are shuffled among themselves.
load_threads = 1
threads = 2
shuffle_chunk_size = 256
