"""How main.py, and a worker of it, ends."""

DONE = 0
FAULT = 1
BAD_INPUT = 2
SOME_CELL_FAILED = 3  # the others are done
RUN_AGAIN = 75  # stopped as asked; the same command continues
