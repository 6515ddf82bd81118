"""The lab: controlled experiments on this kernel about what changes a PID and what does not."""
