"""`python -m deploy WAY ...`: the ways to run a deployment."""

import sys

from deploy.local import command

USAGE = "usage: python -m deploy local [--help]"


def main() -> int:
    match sys.argv[1:]:
        case ["local", *arguments]:
            return command.main(arguments)
        case _:
            print(USAGE, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
