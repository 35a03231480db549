"""`python -m mindseye`: the command of this Python, also where no `mindseye` is on the path, as in a notebook."""

from mindseye.commands.main import main

if __name__ == "__main__":
    main()
