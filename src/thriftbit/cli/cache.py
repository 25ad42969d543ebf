"""`thriftbit cache`: what Thriftbit itself keeps on this disk."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from thriftbit.cli.options import Size, json_option
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
      thriftbit cache clear --to 20GB        calibrations and maps, the oldest first
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
        made = [
            {"kind": kind, "model": source, "size_bytes": size_bytes, "last_used": last_used, "path": str(folder)}
            for kind, source, size_bytes, last_used, folder in _of_models()
        ]
        print_json({"folder": str(cache_folder()), "size_bytes": total_bytes, "kept": listed, "of_models": made})
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
        if rows_of_models := _of_models():
            say("\nOf models, the one that was not used for longest first:")
            show(
                table(
                    ("last used", "kind", ">size", "model"),
                    [
                        (time.strftime("%Y-%m-%d", time.localtime(last_used)), kind, describe_bytes(size_bytes), source)
                        for kind, source, size_bytes, last_used, _ in rows_of_models
                    ],
                )
            )
        say("\n`thriftbit cache clear NAME` removes one. Without NAME it leaves measurements, profile and converter.")


@cache.command(short_help="Remove what can be made again, or WHAT.")
@click.argument("what", required=False)
@click.option("--to", "limit_bytes", type=Size(0), metavar="SIZE", help="Of what is kept of models, leave so much.")
@click.option("--yes", is_flag=True, help="Clear it without asking.")
def clear(what: str | None, limit_bytes: int | None, yes: bool) -> None:
    """Remove WHAT, a name that `thriftbit cache` shows; without it, everything that can be made again. With --to, only
    calibrations, maps and rounded matrices, the ones that were not used for longest first."""
    if limit_bytes is not None:
        if what is not None:
            raise UsageError("--to chooses by age, and WHAT by name; give one of them")
        from thriftbit.library.artefacts import trim

        gone = trim(limit_bytes)
        size_bytes = sum(artefact.size_bytes for artefact in gone)
        say(f"Cleared {describe_bytes(size_bytes)} of {len(gone)} runs." if gone else "There is nothing to clear.")
        return
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


def _of_models() -> list[tuple[str, str, int, float, Path]]:
    """Return one entry for each calibration, map and folder of rounded matrices: its kind, model, bytes, time of last
    use and folder."""
    from thriftbit.library.artefacts import artefacts

    return [
        (
            artefact.folder.parent.name,
            artefact.made_of.source if artefact.made_of else "?",
            artefact.size_bytes,
            artefact.last_used,
            artefact.folder,
        )
        for artefact in artefacts()
    ]
