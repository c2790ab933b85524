"""`python -m medmtl` is the command `medmtl`."""

from medmtl.cli import main

if __name__ == "__main__":  # data loaders that start fresh processes import this module again
    main()
