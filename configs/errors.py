"""The one exception of this room."""


class ConfigError(ValueError):
    """A config that cannot be used. The message reads `FILE: key: what is wrong; the cure`."""

    def __init__(self, file: object, key: str, what: str, cure: str = "") -> None:
        place = f"{file}: {key}" if key else f"{file}"
        super().__init__(f"{place}: {what}" + (f"; {cure}" if cure else ""))
