"""Measure what was gained and kept: bits per byte, multiple choice, intervals, verdicts."""
