"""``python -m cisdriver``."""

from cisdriver.cli import main

if __name__ == "__main__":
    main()
