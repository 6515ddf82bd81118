"""Sinks: where records go while they are captured."""
