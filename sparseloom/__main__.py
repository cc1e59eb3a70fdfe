"""Run the command line as `python -m sparseloom`."""

from sparseloom.cli import main

main()
