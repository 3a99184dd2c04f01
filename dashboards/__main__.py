"""`python -m dashboards` is `sizer`, also where the command itself is not on the path."""

from dashboards.cli import main

main()
