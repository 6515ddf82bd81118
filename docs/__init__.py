"""Documents, and the tables in them that follow from the code."""
