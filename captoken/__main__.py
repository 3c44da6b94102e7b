"""`python -m captoken`: the command line, where the script `captoken` is not on the path."""

from captoken.cli import main

if __name__ == "__main__":
    main()
