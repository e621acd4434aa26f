"""Converters of public road data sets to the project's format on disk: `python -m train.data.convert KIND ... DST`."""
