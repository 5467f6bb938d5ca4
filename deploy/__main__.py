"""`python -m deploy WAY ...`: the ways to run a deployment."""

import sys

USAGE = "usage: python -m deploy local|ray [--help]"


def main() -> int:
    match sys.argv[1:]:
        case ["local", *arguments]:
            from triptych.deploy.local import cli

            return cli.main(arguments)
        case ["ray", *arguments]:
            # Ray takes seconds to import, and is an extra.
            try:
                from triptych.deploy.ray import command as ray_command
            except ModuleNotFoundError as error:
                if error.name != "ray":
                    raise
                print("Ray is not installed here: .venv/bin/pip install -e '.[ray]'", file=sys.stderr)
                return 1
            return ray_command.main(arguments)
        case _:
            print(USAGE, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
