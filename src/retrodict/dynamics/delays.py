"""Delay coordinates: windows of a series as rows, views of it wherever possible; never across the end of an episode."""

from __future__ import annotations

import numpy as np

from retrodict.errors import DataError


def hankel(series: np.ndarray, delays: int, stride: int = 1) -> np.ndarray:
    """Windows (T - (delays - 1) stride, delays, d) of a series (T, d), oldest state first: a read-only view, nothing is copied.

    Args:
        series: states of one episode, equally spaced in time.
        delays: states in a window.
        stride: steps between them.

    Raises DataError where the series is shorter than a window.
    """
    series = np.asarray(series)
    if series.ndim != 2:
        raise DataError(f"a series is (T, d), got shape {list(series.shape)}.")
    reach = (delays - 1) * stride + 1
    if delays < 1 or stride < 1 or len(series) < reach:
        raise DataError(f"{delays} delays at stride {stride} reach over {reach} steps; the series has {len(series)}.")
    windows = np.lib.stride_tricks.sliding_window_view(series, reach, axis=0)  # (n, d, reach)
    return windows[:, :, ::stride].swapaxes(1, 2)


def delay_pairs(series: np.ndarray, delays: int = 1, stride: int = 1, lag: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a series and the same windows `lag` steps later, each (n, delays, d).

    Raises DataError where the series holds no such pair.
    """
    windows = hankel(series, delays, stride)
    if lag < 1 or len(windows) <= lag:
        raise DataError(f"a series of {len(series)} steps holds no two windows of {delays} delays that are {lag} steps apart.")
    return windows[:-lag], windows[lag:]
