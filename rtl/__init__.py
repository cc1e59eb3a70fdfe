"""The same machines in Amaranth, Verilog export and co-simulation."""
