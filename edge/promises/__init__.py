"""What every part promises, as tests: subclass the class of its kind beside a part of your own."""

from edge.promises.operator import OperatorPromises
from edge.promises.sink import SinkPromises
from edge.promises.source import SourcePromises

__all__ = ["OperatorPromises", "SinkPromises", "SourcePromises"]
