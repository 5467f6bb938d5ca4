"""`python -m deploy local` and `python -m deploy ray`, in a checkout: `triptych serve` and `triptych ray`."""

import sys


def main() -> None:
    match sys.argv[1:]:
        case ["local"]:
            from triptych.deploy.local.cli import main as serve

            sys.exit(serve())
        case ["ray", *arguments]:
            from triptych.deploy.ray.__main__ import cli

            cli(arguments, prog_name="triptych ray")
        case _:
            sys.exit("usage: python -m deploy local|ray ...")


if __name__ == "__main__":
    main()
