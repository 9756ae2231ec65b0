"""Rows of the embedding matrices: split them into old and new, give new ones values, report how."""
