"""Verdicts: why the PID that Airflow recorded is, or is not, the one that ran."""
