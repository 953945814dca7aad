"""The command line: provision users, mint tokens, check the surroundings, run the demonstration."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import click

from pushserver.accounts.records import User
from pushserver.accounts.store import AccountStore
from pushserver.bus.connection import connect
from pushserver.bus.health import HealthStore
from pushserver.bus.memos import Memos
from pushserver.bus.states import States
from pushserver.bus.user_traces import UserTraces
from pushserver.check import findings
from pushserver.clock import SystemClock
from pushserver.errors import PushserverError, SettingsError
from pushserver.exchange.egress import egress_of, egresses_of
from pushserver.inspecting import Seen, as_text, report
from pushserver.model import MAX_USER_ID, DataType, Secret
from pushserver.provisioning import Provisioning
from pushserver.settings import Settings
from pushserver.tokens import MAX_LIFETIME_S, tokens_from_settings
from pushserver.workers.memo import Memo
from pushserver.workers.timing import Timing

EXIT_FAILED = 1
EXIT_SETTINGS = 2


def friendly(command: Callable[..., Any]) -> Callable[..., Any]:
    """Failures of our own become a line each and an exit code, never a traceback."""

    @wraps(command)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        try:
            return command(*arguments, **named)
        except SettingsError as error:
            for problem in error.problems:
                click.echo(problem, err=True)
            sys.exit(EXIT_SETTINGS)
        except PushserverError as error:
            click.echo(f"{error.code}: {error.message}", err=True)
            sys.exit(EXIT_FAILED)

    return wrapper


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """pushserver: account changes at the exchange, pushed to phones. Settings come from the environment."""


@main.group()
def users() -> None:
    """Provision users.

    Passwords and API secrets come from standard input or a prompt, never from the command line. Exchange keys
    are stored without asking the exchange about them, so that users can be made before the network is up.
    """


@users.command("add")
@click.argument("name")
@click.option("--user-id", type=click.IntRange(1, MAX_USER_ID), help="Default: the highest id so far plus one.")
@click.option("--api-key", help="Exchange API key, stored unverified.")
@click.option("--api-secret-stdin", is_flag=True, help="Read the API secret from standard input, after the password.")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@friendly
def add_user(name: str, user_id: int | None, api_key: str | None, api_secret_stdin: bool, password_stdin: bool) -> None:
    """Add a user; creates the schema on an empty database."""
    if api_secret_stdin and not api_key:
        raise click.UsageError("--api-secret-stdin needs --api-key")
    settings = Settings.from_env()
    password = _secret("Password", from_stdin=password_stdin, confirm=True)
    api_secret = _secret("API secret", from_stdin=api_secret_stdin) if api_key else None
    user = _provisioning(settings).add(name, password, user_id, api_key, api_secret)
    click.echo(f"user {user.id} {user.name} added")


@users.command("list")
@friendly
def list_users() -> None:
    """One line per user: id, name, state, masked API key, day of creation."""
    found = _accounts(Settings.from_env()).users()
    if not found:
        # Not among the lines that a script reads.
        click.echo("there are no users", err=True)
    for user in found:
        day = datetime.fromtimestamp(user.created_s, UTC).date()
        state = "disabled" if user.disabled else "enabled"
        click.echo(f"{user.id}\t{user.name}\t{state}\t{user.api_key or '-'}\t{day}")


@users.command("set-key")
@click.argument("name")
@click.option("--api-key", required=True)
@click.option("--api-secret-stdin", is_flag=True, help="Read the API secret from standard input (else: a prompt).")
@friendly
def set_key(name: str, api_key: str, api_secret_stdin: bool) -> None:
    """Store or replace a user's exchange key, without asking the exchange about it."""
    settings = Settings.from_env()
    api_secret = _secret("API secret", from_stdin=api_secret_stdin)
    _done(_provisioning(settings).set_key(name, api_key, api_secret), "key stored")


@users.command("set-password")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input (else: a prompt).")
@friendly
def set_password(name: str, password_stdin: bool) -> None:
    """Replace a user's password; living tokens go on counting (see revoke-tokens)."""
    settings = Settings.from_env()
    password = _secret("Password", from_stdin=password_stdin, confirm=True)
    _done(_provisioning(settings).set_password(name, password), "password set")


@users.command("disable")
@click.argument("name")
@friendly
def disable_user(name: str) -> None:
    """Refuse a user's logins and tokens, and close their connections."""
    _done(_provisioning(Settings.from_env()).disable(name), "disabled")


@users.command("enable")
@click.argument("name")
@friendly
def enable_user(name: str) -> None:
    """Take back `disable`."""
    _done(_provisioning(Settings.from_env()).enable(name), "enabled")


@users.command("remove")
@click.argument("name")
@friendly
def remove_user(name: str) -> None:
    """Delete a user's name, password and exchange key; the id is never given to anybody else."""
    _done(_provisioning(Settings.from_env()).remove(name), "removed")


@users.command("revoke-tokens")
@click.argument("name")
@friendly
def revoke_tokens(name: str) -> None:
    """Refuse every token issued to a user up to now, and close the connections made with them."""
    _done(_provisioning(Settings.from_env()).revoke_tokens(name), "tokens revoked")


@users.command("rotate-keys")
@friendly
def rotate_keys() -> None:
    """Encrypt every API secret with the first of CREDENTIALS_KEYS; may be interrupted and repeated."""
    changed, unreadable = _accounts(Settings.from_env()).reencrypt_keys()
    click.echo(f"{changed} keys encrypted again")
    for user_id in unreadable:
        click.echo(f"user {user_id}: the stored secret cannot be decrypted with any of CREDENTIALS_KEYS", err=True)
    if unreadable:
        sys.exit(EXIT_FAILED)


@main.command("token")
@click.argument("user_id", type=click.IntRange(1, MAX_USER_ID))
@click.option("--ttl", type=click.IntRange(1, MAX_LIFETIME_S), help="Seconds; default: JWT_TTL_S.")
@friendly
def mint_token(user_id: int, ttl: int | None) -> None:
    """Print a token for testing."""
    settings = Settings.from_env()
    click.echo(tokens_from_settings(settings, SystemClock()).mint(user_id, ttl))


@main.command("check")
@click.option("--print", "print_settings", is_flag=True, help="Show the effective settings, secrets masked.")
@friendly
def check(print_settings: bool) -> None:
    """Validate the settings and ask Redis, the database and the exchange; exit code 1 if any fails."""
    settings = Settings.from_env()
    if print_settings:
        for name, value in settings.printable():
            click.echo(f"{name}={value}")
    failed = False
    for finding in findings(settings, SystemClock()):
        click.echo(str(finding))
        failed = failed or not finding.ok
    if failed:
        sys.exit(EXIT_FAILED)


@main.command("inspect")
@click.argument("user")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@friendly
def inspect_user(user: str, as_json: bool) -> None:
    """Show all that is known of one USER (name or id): who listens, how old what they see is, what failed, who serves.

    Only looks. For the address requests leave through, run it on a host with the same EGRESS_ID.
    """
    settings = Settings.from_env()
    found = report(look_at(settings, user), Timing(settings.push_intervals, settings.reconcile_s))
    click.echo(json.dumps(found, indent=2) if as_json else as_text(found))


@main.command("demo")
@click.option("--port", type=click.IntRange(0, 65_535), default=5000, show_default=True, help="Web port, when free.")
def demo(port: int) -> None:
    """Start everything on this machine, with a simulated exchange."""
    # Only here, because it brings the whole program with it.
    from pushserver.demo.run import main as run_demo

    sys.exit(run_demo(port))


def look_at(settings: Settings, name_or_id: str) -> Seen:
    """Read everything there is about a user. Raises PushserverError: unknown, or something cannot be asked."""
    user = _find(_accounts(settings), name_or_id)
    redis_client = connect(settings.redis_url)
    traces, egresses = UserTraces(redis_client), egresses_of(settings.egress_id, settings.egress_proxies)
    egress = egresses[egress_of(user.id, egresses)].name
    trace = traces.of_user(user.id)
    states = States(redis_client, SystemClock()).read([(user.id, data_type) for data_type in DataType])
    memo = Memo.from_bytes(Memos(redis_client).read([user.id])[user.id], trace.now_ms)
    [health] = HealthStore(redis_client).read([user.id])
    return Seen(user, trace, states, memo, health, egress, traces.pause_of(egress))


def _find(accounts: AccountStore, name_or_id: str) -> User:
    """By id first, for a name may be a number, too; with the masked key, which only the list shows."""
    users = accounts.users()
    by_id = [user for user in users if str(user.id) == name_or_id]
    by_name = [user for user in users if user.name == name_or_id]
    return next(iter(by_id + by_name), None) or accounts.user(name_or_id)


def _accounts(settings: Settings) -> AccountStore:
    """The store, its schema up to date: an empty database simply has no users."""
    accounts = AccountStore.open(settings.database_url, settings.credentials_keys, SystemClock())
    accounts.upgrade()
    return accounts


def _provisioning(settings: Settings) -> Provisioning:
    redis_client = connect(settings.redis_url)
    return Provisioning(_accounts(settings), redis_client, SystemClock(), lambda text: click.echo(text, err=True))


def _done(user: User, what: str) -> None:
    click.echo(f"user {user.id} {user.name} {what}")


def _secret(name: str, *, from_stdin: bool, confirm: bool = False) -> Secret:
    if not from_stdin:
        return Secret(click.prompt(name, hide_input=True, confirmation_prompt=confirm))
    if sys.stdin.isatty():
        click.echo(f"reading the {name} from standard input", err=True)
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise click.UsageError(f"standard input holds no {name}")
    return Secret(line)


if __name__ == "__main__":
    main(prog_name="python -m pushserver")
