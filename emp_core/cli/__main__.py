"""``python -m emp_core.cli``."""

from emp_core.cli.main import main

main()
