"""What every type of a config is built on."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1, strict=True)]
NotNegative = Annotated[int, Field(ge=0, strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Above0 = Annotated[Number, Field(gt=0.0)]
AtLeast0 = Annotated[Number, Field(ge=0.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, strict=True)]
Byte = Annotated[int, Field(ge=0, le=255, strict=True)]
HW = tuple[Positive, Positive]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Frozen(BaseModel):
    """Unknown keys and wrong types are errors; a built value does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
