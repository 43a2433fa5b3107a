"""The ``uptier`` command: its sub-commands, and one line with an exit code for every fault."""

from __future__ import annotations

import os
import sys

import click
import typer
from sqlalchemy.exc import DBAPIError

from cli import decide, models, simulate, stack, worker
from config import secrets
from config.errors import UptierError

INTERRUPTED = 130

app = typer.Typer(
    name="uptier",
    help="Answers every small decision with the cheapest model that can be trusted with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("simulate")(simulate.simulate)
app.command("decide")(decide.decide)
app.add_typer(models.app, name="models")
app.command("up")(stack.up)
app.command("down")(stack.down)
app.command("status")(stack.status)
app.command("worker")(worker.worker)


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    secrets.install()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and give its exit status."""
    try:
        status = typer.main.get_command(app).main(
            args=arguments, prog_name="uptier", standalone_mode=False
        )
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted; what was submitted stays in the ledger", INTERRUPTED)
    except UptierError as error:
        return _say(str(error), error.exit_code)
    except DBAPIError as error:
        cause = str(error.orig).strip().splitlines()[0]
        return _say(f"the ledger failed: {cause}; see `uptier status`", 1)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status if isinstance(status, int) else 0


def _say(message: str, status: int) -> int:
    line = " ".join(secrets.redact(message).split())
    print(f"uptier: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
