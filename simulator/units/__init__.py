"""Cycle-exact software models of the machines' units: the same handshakes, bits and counts."""
