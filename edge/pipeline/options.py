"""What every group of options of a definition has in common."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """A group of options of the definition."""

    model_config = ConfigDict(extra="forbid", frozen=True)
