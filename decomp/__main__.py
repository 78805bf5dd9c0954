"""Run the command `decomp` as `python -m decomp`."""

from decomp.cli.main import main

if __name__ == "__main__":
    main(prog_name="decomp")
