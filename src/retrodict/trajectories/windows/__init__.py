"""Windows: what a system reads around a step, and batches of it gathered by index."""

from retrodict.trajectories.windows.batches import Windows
from retrodict.trajectories.windows.spans import Between, Edge, Reading, Span, Window

__all__ = ["Between", "Edge", "Reading", "Span", "Window", "Windows"]
