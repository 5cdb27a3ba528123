"""Jobs: the verbs of the product."""
