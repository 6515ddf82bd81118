"""The running agent's socket: who on this host may ask it what it has seen, and how."""
