"""`python -m edgewright`: the command line, where its script is not on the PATH."""

from edgewright.cli.main import run_and_exit

if __name__ == "__main__":
    run_and_exit()
