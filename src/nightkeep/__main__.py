"""``python -m nightkeep``: the same as the ``nightkeep`` command."""

from nightkeep.cli.main import main

if __name__ == "__main__":
    main()
