"""`python -m pidtrail` is `pidtrail`."""

from pidtrail.cli import main

main()
