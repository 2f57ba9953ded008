"""Scores: extractors, one pass over the images, the metrics that it feeds, and the record of how it was done."""
