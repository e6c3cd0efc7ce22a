"""The definition of a pipeline: loads YAML or Python, validates it, explains it."""

from edge.pipeline.binding import Bound, BoundBranch, Stage
from edge.pipeline.model import Branch, Named, Pipeline

__all__ = ["Bound", "BoundBranch", "Branch", "Named", "Pipeline", "Stage"]
