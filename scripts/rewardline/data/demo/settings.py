"""What the demo depends on."""

from pydantic import Field

from rewardline.core.settings import Integer, Settings


class DemoSettings(Settings):
    """The built-in generator of preference pairs."""

    pairs: Integer = Field(6000, ge=1, description="Number of pairs to generate.")
    seed: Integer = Field(1, ge=0, description="Seed of the generator.")
