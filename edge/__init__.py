"""Process sensor data where it is made, and forward the results with nothing lost."""

__version__ = "0.1.0"
