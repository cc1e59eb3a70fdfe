"""The machine: its parameters, its schedule format, exact timing and counted events."""
