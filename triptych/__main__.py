"""`triptych`: the command line."""

import sys
from pathlib import Path

import click

from triptych.command_line import Commands, Lazy, SettingsCommand, load

# The extras with the dependencies of each command. The others need only what the client does.
EXTRAS = {
    "serve": "cpu|gpu",
    "router": "router",
    "worker": "cpu|gpu",
    "merge": "workers",
    "tiny": "workers",
    "verify": "workers",
    "keys": "router",
    "ray": "ray",
    "loadtest": "loadtest",
    "bench": "bench",
}


@click.command(short_help="Check the vectors of a running deployment, or a checkpoint folder.")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--url", help="Address of the deployment.  [default: http://127.0.0.1:8080]")
@click.option("--full", is_flag=True, help="With FOLDER: read the weights too, and compare their digest.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(context: click.Context, folder: Path | None, url: str | None, full: bool, as_json: bool) -> None:
    """Check the vectors of a running deployment, or a checkpoint FOLDER.

    A deployment has to reproduce published cosines of the task text-matching, which only the real weights do.
    A folder has to be a variant that a worker can serve. Exit status: 0 if so, else 1.

    \b
    Examples:
      triptych verify --url http://127.0.0.1:8080
      triptych verify /models/jina-embeddings-v4/code --full
    """
    if folder is None:
        if full:
            raise click.UsageError("--full reads the weights of a folder: name the FOLDER")
        deployment = load("router.client.__main__:verify")
        context.invoke(deployment, **({"url": url} if url else {}), as_json=as_json)
    else:
        if url:
            raise click.UsageError("--url is for a deployment: leave out FOLDER")
        context.invoke(load("workers.checkpoints.__main__:verify"), folder=folder, full=full, as_json=as_json)


def passed_on(main: str, about: str) -> click.Command:
    """A command whose `main` gets its arguments as they are."""
    return click.Command(
        None,
        callback=lambda arguments: sys.exit(load(main)(arguments)),
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        short_help=about,
        context_settings={"ignore_unknown_options": True},
        add_help_option=False,
    )


cli = Commands(
    context_settings={"max_content_width": 110},
    help="""Serve Jina's embedding models at high throughput, and use what is served.

    \b
    Start here:
      triptych serve                                   serve on this machine, until Ctrl-C
      triptych embed corpus.jsonl vectors.npy          embed a whole file
      triptych keys alice                              make an API key
      triptych COMMAND --help                          options and examples of a command

    \b
    Completion of commands and options, in ~/.bashrc (or with zsh_source, fish_source):
      eval "$(_TRIPTYCH_COMPLETE=bash_source triptych)"
    """,
    commands={
        "serve": SettingsCommand(
            "deploy.settings:DeploySettings",
            "deploy.local.cli:main",
            short_help="Serve on this machine: a router and its workers.",
            help="""Run a router and its workers on this machine until Ctrl-C.

            With an NVIDIA GPU it serves the real weights, otherwise a demo with small random ones. Each
            option is also a variable, in the environment or in the file .env. The router and the workers get
            ROUTER_* and WORKER_*, as in `triptych router --help` and `triptych worker --help`.

            \b
            Examples:
              triptych serve
              triptych serve --pools retrieval=2,code --gpus 0,1
              ROUTER_PORT=9000 triptych serve --model demo
            """,
        ),
        "router": SettingsCommand(
            "router.settings:RouterSettings",
            "router.__main__:main",
            short_help="Run a router: the HTTP API in front of workers.",
            help="""Run a router, which serves the HTTP API and calls workers, until SIGTERM.

            Each option is also a variable of the environment. Secrets are variables only:
            ROUTER_WORKER_TOKEN, ROUTER_DISCOVERY_TOKEN.

            \b
            Examples:
              triptych router --discovery workers.json --api-keys-file keys.json
              triptych router --host 0.0.0.0 --processes 4 --discovery http://discovery:8000/targets
            """,
        ),
        "worker": SettingsCommand(
            "workers.settings:WorkerSettings",
            "workers.__main__:main",
            short_help="Run a worker: one vLLM engine with one variant.",
            help="""Run a worker, one vLLM engine that serves one variant, until SIGTERM.

            Each option is also a variable of the environment. Secrets are variables only: WORKER_TOKEN.

            \b
            Examples:
              triptych worker --model /models/jina-embeddings-v4/code
              triptych worker --model jinaai/jina-embeddings-v4-vllm-code --task code --port 8102
            """,
        ),
        "merge": Lazy("workers.checkpoints.__main__:merge", "Merge adapters into the base weights."),
        "tiny": Lazy("workers.checkpoints.__main__:tiny", "Write a small random checkpoint."),
        "verify": verify,
        "embed": Lazy("router.client.__main__:embed", "Embed a whole file."),
        "keys": Lazy("router.access.keys:keys", "Make an API key."),
        "ray": Lazy("deploy.ray.__main__:cli", "Run a deployment on a Ray cluster."),
        "loadtest": passed_on("loadtests.__main__:main", "Load a deployment, check its replies and report."),
        "bench": passed_on(
            "loadtests.bench.__main__:main", "Compare Triptych with other servers, side by side."
        ),
    },
)
click.version_option(package_name="triptych")(cli)


def main() -> None:
    """Run the command line. Names the extra to install if a command misses a package."""
    try:
        cli(prog_name="triptych")
    except ModuleNotFoundError as error:
        package, extras = (error.name or "").partition(".")[0], EXTRAS.get("".join(sys.argv[1:2]))
        if package in ("", "triptych") or extras is None:
            raise
        ways = " or ".join(f"pip install 'triptych[{extra}]'" for extra in extras.split("|"))
        click.echo(f"Error: this needs {package}, which is not installed: {ways}", err=True)
        # Not 1, which is a result of some commands.
        sys.exit(2)


if __name__ == "__main__":
    main()
