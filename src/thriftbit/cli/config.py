"""`thriftbit config`, and defaults from config.toml for the options of all commands.

A key is the long name of an option: at the top of the file it counts for every command that has the option, in the
table of a command for that command. Options given on the command line come first. A wrong key or value is an error
that names the file, for every command but this one, with which it can be mended.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from thriftbit.cli.completion import beginning_with
from thriftbit.cli.messages import announce
from thriftbit.cli.options import json_option
from thriftbit.cli.printing import print_json, say, show, table
from thriftbit.errors import ThriftbitError, UsageError
from thriftbit.machine.configuration import configuration_file, read_configuration
from thriftbit.strangers import harmless

FOLDERS = "library.folders"
_OTHER_KEYS = {FOLDERS: "folders of your own with models"}
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOT_FOR_FILES = ("help", "version")


class OptionDefault(NamedTuple):
    """An option that config.toml can give a default. command: "" for all commands that have it."""

    command: str
    option: click.Option
    context: click.Context

    @property
    def key(self) -> str:
        name = option_name(self.option)
        return f"{self.command}.{name}" if self.command else name

    def checked(self, value: Any) -> Any:
        """Return the value as the file has it; UsageError if the option does not take it."""
        if self.option.is_flag and not isinstance(value, bool):
            raise UsageError(f"{self.key}: {value!r} is not true or false")
        if self.option.multiple and not isinstance(value, list):
            value = [value]
        if isinstance(value, Mapping) or (isinstance(value, list) and not self.option.multiple):
            raise UsageError(f"{self.key}: {value!r} is not one value")
        try:
            self.option.type_cast_value(self.context, value if self.option.is_flag else _as_text(value))
        except click.BadParameter as error:
            raise UsageError(f"{self.key}: {error.message}") from None
        return value


def option_name(option: click.Option) -> str:
    """Return "min-speed" for --min-speed."""
    return max(option.opts, key=len).lstrip("-")


def known_settings(group: click.Group) -> dict[str, OptionDefault]:
    """Return every setting by its key: those of one command, and those of all commands that have the option."""
    settings: dict[str, OptionDefault] = {}
    for name, command in sorted(group.commands.items()):
        context = click.Context(command, info_name=name)
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in _NOT_FOR_FILES:
                settings.setdefault(option_name(option), OptionDefault("", option, context))
                settings[f"{name}.{option_name(option)}"] = OptionDefault(name, option, context)
    return settings


def defaults_for(group: click.Group, document: Mapping[str, Any], file: Path) -> dict[str, dict[str, Any]]:
    """document: config.toml. Returns click's default_map, by command and
    parameter; ThriftbitError for what is wrong."""
    settings = known_settings(group)
    defaults: dict[str, dict[str, Any]] = {name: {} for name in group.commands}
    for key, value in sorted(_flat(document, settings), key=lambda item: "." in item[0]):
        if key == FOLDERS:
            continue
        try:
            setting = setting_of(key, settings)
            for name in [setting.command] if setting.command else list(defaults):
                own = settings.get(f"{name}.{option_name(setting.option)}")
                if own is not None:
                    checked = own.checked(value)
                    defaults[name][own.option.name or ""] = checked if own.option.is_flag else _as_text(checked)
        except UsageError as error:
            raise ThriftbitError(f"{file}: {error}. `thriftbit config` mends it") from None
    return defaults


def setting_of(key: str, settings: Mapping[str, OptionDefault]) -> OptionDefault:
    """Return the setting of this key; UsageError, with what was perhaps meant, if there is none."""
    wanted = key.replace("_", "-").lower()
    if wanted in settings:
        return settings[wanted]
    near = difflib.get_close_matches(wanted, [*settings, *_OTHER_KEYS], 3, cutoff=0.6)
    meant = f"; do you mean {' or '.join(near)}?" if near else "; `thriftbit config --all` lists what there is"
    raise UsageError(f"there is no setting {harmless(key)!r}{meant}")


def _flat(document: Mapping[str, Any], settings: Mapping[str, OptionDefault]) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", each) for inner, each in value.items())
        else:
            yield key, value


def _as_text(value: Any) -> Any:
    """Return the value as a shell would give it, so that 8192 and "8k" both are tokens."""
    return [str(each) for each in value] if isinstance(value, list) else str(value)


@click.group(invoke_without_command=True, short_help="Show and change the defaults of all options.")
@click.option("--all", "show_all", is_flag=True, help="List every setting there is.")
@json_option
@click.pass_context
def config(context: click.Context, show_all: bool, as_json: bool) -> None:
    """Show and change config.toml, which has defaults for the options of all commands.

    KEY is an option's name: "offline" for all commands that have --offline, "chat.context" for `thriftbit chat` alone.
    An option given on the command line comes before its default here. THRIFTBIT_CONFIG names another file.

    \b
    Examples:
      thriftbit config                               the file, and what it sets
      thriftbit config --all                         every setting there is, and its value
      thriftbit config set chat.context 16k
      thriftbit config set offline true              for every command
      thriftbit config set library.folders ~/models /data/gguf
      thriftbit config unset chat.context
    """
    if context.invoked_subcommand is not None:
        return
    group = _group(context)
    file, settings = configuration_file(), known_settings(group)
    document = read_configuration(file)
    chosen = dict(_flat(document, settings))
    rows = _effective(chosen, settings) if show_all else [(key, value, "config.toml") for key, value in chosen.items()]
    if as_json:
        values = {key: {"value": _plain(value), "from": origin} for key, value, origin in rows}
        print_json({"path": str(file), "exists": file.exists(), "settings": values})
    else:
        say(str(file) if file.exists() else f"{file} (does not exist yet)", style="bold")
        if rows:
            show(table(("key", "value", "from"), [(key, _shown(value), origin) for key, value, origin in rows]))
        else:
            say("It sets nothing. `thriftbit config --all` lists what can be set.")
    defaults_for(group, document, file)  # says what is wrong with it


def _group(context: click.Context) -> click.Group:
    group = context.find_root().command
    assert isinstance(group, click.Group)
    return group


def _effective(chosen: Mapping[str, Any], settings: Mapping[str, OptionDefault]) -> list[tuple[str, Any, str]]:
    """Return key, value and origin of every setting of a command, and of what counts for all."""
    rows: list[tuple[str, Any, str]] = []
    for key, setting in settings.items():
        shared = option_name(setting.option)
        if key in chosen:
            rows.append((key, chosen[key], "config.toml"))
        elif setting.command and shared in chosen:
            rows.append((key, chosen[shared], f"config.toml, {shared}"))
        elif setting.command:
            rows.append((key, setting.option.to_info_dict()["default"], "built in"))
    return [*rows, (FOLDERS, chosen.get(FOLDERS), "config.toml" if FOLDERS in chosen else "built in")]


def _plain(value: Any) -> Any:
    """Return as JSON has it."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)


def complete_settings(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the keys of config.toml that begin with what was typed."""
    settings = known_settings(_group(context))
    return beginning_with(begun, ((key, setting.option.help or "") for key, setting in settings.items()))


@config.command("set", short_help="Set a default.")
@click.argument("key", shell_complete=complete_settings)
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@click.pass_context
def set_value(context: click.Context, key: str, values: tuple[str, ...]) -> None:
    """Set the default of the option KEY in config.toml.

    \b
    Examples:
      thriftbit config set quantize.to Q5_K_M
      thriftbit config set color never
    """
    key = key.replace("_", "-").lower()
    if key == FOLDERS:
        value: Any = list(values)
    else:
        setting = setting_of(key, known_settings(_group(context)))
        value = list(values) if setting.option.multiple else _typed(" ".join(values), setting)
        setting.checked(value)
    _change(key, value)
    announce(f"{key} = {_shown(value)}, in {configuration_file()}")


def _typed(text: str, setting: OptionDefault) -> Any:
    """Return what a person typed, as TOML has it."""
    if setting.option.is_flag:
        return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(
            text.lower(), text
        )
    return int(text) if text.isdecimal() and len(text) < 16 else text


@config.command("unset", short_help="Remove a default.")
@click.argument("key", shell_complete=complete_settings)
def unset(key: str) -> None:
    """Remove KEY from config.toml, so that the built-in default counts again.

    \b
    Examples:
      thriftbit config unset quantize.to
    """
    if key not in dict(_flat(read_configuration(), {})):
        key = key.replace("_", "-").lower()
    if key not in dict(_flat(read_configuration(), {})):
        raise UsageError(
            f"{configuration_file()} does not set {harmless(key)!r}; `thriftbit config` shows what it sets"
        )
    _change(key, None)
    announce(f"{key} is unset, in {configuration_file()}")


def _change(key: str, value: Any) -> None:
    """value: None removes the key. Comments and order of the file stay."""
    import tomlkit

    from thriftbit.containers.atomic_file import AtomicFile

    file = configuration_file()
    read_configuration(file)  # ThriftbitError if it is no TOML
    document = tomlkit.parse(file.read_text(encoding="utf-8") if file.exists() else "")
    section, _, name = key.rpartition(".")
    place: Any = document
    if section:
        if section not in document:
            document[section] = tomlkit.table()
        place = document[section]
    if value is None:
        del place[name]
        if section and not place:
            del document[section]
    else:
        place[name] = value
    content = tomlkit.dumps(document).encode()
    file = file.resolve()  # a link stays a link
    file.parent.mkdir(parents=True, exist_ok=True)
    with AtomicFile(file, len(content), force=True, private=True) as written:
        written.write(content)
