"""pidtrail: which process really ran an Airflow task instance, with kernel evidence."""

__version__ = "0.1.0"
