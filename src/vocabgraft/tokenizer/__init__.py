"""Grafting tokenizers: count words, train pieces on the base segmentation, select, expand, measure."""
