"""Airflow: which process is which task instance, and what Airflow itself recorded."""
