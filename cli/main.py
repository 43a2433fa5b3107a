"""The ``uptier`` command: its sub-commands, and one line with an exit code for every fault."""

from __future__ import annotations

import importlib
import os
import sys

import typer
from sqlalchemy.exc import DBAPIError

from config import secrets
from config.errors import UptierError

INTERRUPTED = 130
GOES_ON = {
    "batch": "run the same command again, it goes on where it stopped",
    "costs": "nothing was changed or written, run the same command again",
    "doctor": "it only looks, nothing was changed",
    "models": "run the same command again, it goes on where it stopped",
    "replay": "the same command with --resume goes on from its last settled decision",
    "serve": "requests that were under way were finished or cancelled",
    "daemon": "`uptier daemon --resume` goes on with its next iteration",
    "pipeline": "`uptier pipeline run CONFIG --resume` goes on from its last settled decision",
    "simulate": "`uptier simulate --resume` goes on from its last settled decision",
    "session": "`uptier session --resume` goes on with it",
}
"""What to do after an interruption, by command."""

COMMANDS = {
    "simulate": "cli.simulate",
    "daemon": "cli.daemon",
    "approvals": "cli.approvals",
    "memory": "cli.memory",
    "decide": "cli.decide",
    "batch": "cli.batch",
    "replay": "cli.replay",
    "session": "cli.chat_session",
    "certify": "cli.certify",
    "evaluate": "cli.evaluate",
    "policy": "cli.policy",
    "costs": "cli.costs",
    "pipeline": "cli.pipeline",
    "report": "cli.run_report",
    "cancel": "cli.cancel",
    "label": "cli.label",
    "models": "cli.models",
    "cache": "cli.cache",
    "serve": "cli.serve",
    "up": "cli.stack",
    "down": "cli.stack",
    "status": "cli.stack",
    "metrics": "cli.metrics",
    "top": "cli.top",
    "flower": "cli.flower",
    "worker": "cli.worker",
    "health": "cli.health",
    "migrate": "cli.migrate",
    "doctor": "cli.doctor",
    "fleet": "cli.fleet",
}
"""The module of each command, in the order of the help: a function of its name, or an ``app``.

Only that which is asked for is imported; all of them take much longer.
"""


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    secrets.install()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and give its exit status."""
    try:
        group = typer.main.get_group(commands(arguments[0] if arguments else None))
        status = group.main(args=arguments, prog_name="uptier", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except typer.TyperException as error:
        return _refuse(error)
    except UptierError as error:
        return _say(str(error), error.exit_code)
    except DBAPIError as error:
        cause = str(error.orig).strip().splitlines()[0]
        return _say(f"the ledger failed: {cause}; see `uptier status`", 1)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if status == INTERRUPTED:
        mend = GOES_ON.get(arguments[0], "what was submitted stays in the ledger")
        return _say(f"interrupted; {mend}", INTERRUPTED)
    return status if isinstance(status, int) else 0


def commands(asked: str | None = None) -> typer.Typer:
    """The sub-command ``asked`` for; all of them where it is none of them, as ``--help``."""
    app = typer.Typer(
        name="uptier",
        help="Answers every small decision with the cheapest model that can be trusted with it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for name in [asked] if asked in COMMANDS else COMMANDS:
        module = importlib.import_module(COMMANDS[name])
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def _refuse(error: typer.TyperException) -> int:
    message = error.format_message()
    if "\n" not in message:
        return _say(f"{message.rstrip('.')}; see `uptier --help`", error.exit_code)
    print(message, file=sys.stderr)  # the help, where a command was left out
    return error.exit_code


def _say(message: str, status: int) -> int:
    line = " ".join(secrets.redact(message).split())
    print(f"uptier: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
