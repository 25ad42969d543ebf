"""`thriftbit cache`: what Thriftbit itself keeps on this disk."""

from __future__ import annotations

import sys

import click

from thriftbit.cli.options import json_option
from thriftbit.cli.printing import output, print_json, say, show, table
from thriftbit.errors import UsageError
from thriftbit.sizes import describe_bytes


@click.group(short_help="Show and clear what Thriftbit keeps on this disk.", invoke_without_command=True)
@json_option
@click.pass_context
def cache(context: click.Context, as_json: bool) -> None:
    """Show what Thriftbit itself keeps on this disk, with sizes. Models are not in it: `thriftbit ls` lists those.

    \b
    Examples:
      thriftbit cache
      thriftbit cache clear                  all that can be made again
      thriftbit cache clear measurements
    """
    if context.invoked_subcommand is not None:
        return
    from thriftbit.folders import cache_folder
    from thriftbit.library.kept import kept

    groups = kept()
    total_bytes = sum(group.size_bytes for group in groups)
    if as_json:
        listed = [
            {"name": group.name, "size_bytes": group.size_bytes, "paths": [str(path) for path in group.paths]}
            for group in groups
        ]
        print_json({"folder": str(cache_folder()), "size_bytes": total_bytes, "kept": listed})
        return
    say(f"{describe_bytes(total_bytes)} in {cache_folder()}")
    if groups:
        say("")
        if output.width >= 100:
            rows = [(group.name, describe_bytes(group.size_bytes), group.what) for group in groups]
            show(table(("name", ">size", "what it is"), rows))
        else:
            for group in groups:
                say(f"{group.name}  {describe_bytes(group.size_bytes)}", style="bold")
                output.print(f"    {group.what}")
        say("\n`thriftbit cache clear NAME` removes one. Without NAME it leaves measurements, profile and converter.")


@cache.command(short_help="Remove what can be made again, or WHAT.")
@click.argument("what", required=False)
@click.option("--yes", is_flag=True, help="Clear it without asking.")
def clear(what: str | None, yes: bool) -> None:
    """Remove WHAT, a name that `thriftbit cache` shows; without it, everything that can be made again."""
    from thriftbit.library import kept

    going = [group for group in kept.kept() if group.name == what or (what is None and not group.is_yours)]
    size_bytes = sum(group.size_bytes for group in going)
    if going and not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody can be asked here; --yes agrees beforehand. Nothing was cleared")
        names = ", ".join(group.name for group in going)
        click.confirm(f"Clear {names} ({describe_bytes(size_bytes)})?", abort=True, err=True)
    cleared = kept.clear(what)
    say(f"Cleared {', '.join(group.name for group in cleared)}." if cleared else "There is nothing to clear.")
