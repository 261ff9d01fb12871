"""`python -m tunesmith`: the same as the command `tunesmith`."""

from tunesmith.cli import main

main()
