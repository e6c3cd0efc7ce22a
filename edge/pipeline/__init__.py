"""The definition of a pipeline: loads YAML or Python, validates it, explains it."""

from edge.pipeline.binding import Bound, BoundBranch, Stage
from edge.pipeline.model import Branch, Named, Pipeline
from edge.pipeline.reading import load, loads

__all__ = ["Bound", "BoundBranch", "Branch", "Named", "Pipeline", "Stage", "load", "loads"]
