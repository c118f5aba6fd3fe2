"""`python -m edgewright.cli`, where the console script is not on the path."""

from edgewright.cli.main import run_and_exit

run_and_exit()
