"""Sources: where records and rows come from."""
