"""Documents from many sources: read, cleaned, told apart, counted; and the word pairs of a dictionary."""
