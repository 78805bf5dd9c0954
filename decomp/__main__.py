"""Run the command `decomp` as `python -m decomp`."""

from decomp.cli.main import main

main(prog_name="decomp")
