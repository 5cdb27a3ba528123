"""``python -m vectide`` is ``vectide``."""

from vectide.cli import main

if __name__ == "__main__":
    main()
