"""Reports: what a person reads; each form is one file."""
