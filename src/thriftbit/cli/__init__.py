"""The command line: parse, call one verb, print. No logic: whatever it can do, `import thriftbit` can do too.

One file per command. They call verbs through the package (`thriftbit.quantize`), which loads what a verb needs only
when it is called, so that `--help` is instant. Errors of the user arrive as ThriftbitError and leave as a line or two.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from typing import Any

import click

from thriftbit import __version__
from thriftbit.cli.alias import alias
from thriftbit.cli.cache import cache
from thriftbit.cli.chat import chat
from thriftbit.cli.compare import compare
from thriftbit.cli.completion import completion
from thriftbit.cli.config import config, defaults_for
from thriftbit.cli.demo import demo
from thriftbit.cli.doctor import doctor
from thriftbit.cli.explain import explain
from thriftbit.cli.export import export
from thriftbit.cli.find import find
from thriftbit.cli.fit import fit
from thriftbit.cli.inspect import inspect
from thriftbit.cli.ls import ls
from thriftbit.cli.map import map_command
from thriftbit.cli.mcp import mcp
from thriftbit.cli.measure import measure
from thriftbit.cli.messages import message_options, show_messages
from thriftbit.cli.printing import print_error, print_json
from thriftbit.cli.pull import pull
from thriftbit.cli.quantize import quantize
from thriftbit.cli.report import report
from thriftbit.cli.rm import rm
from thriftbit.cli.serve import serve
from thriftbit.cli.streams import OutputError, OutputGone, watch_output
from thriftbit.errors import ThriftbitError
from thriftbit.machine.configuration import configuration_file, read_configuration

INTERRUPTED = 130


class _Commands(click.Group):
    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        show_messages()  # before the options that change how much is shown
        return super().make_context(*arguments, **settings)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="thriftbit %(version)s")
@click.pass_context
def commands(context: click.Context) -> None:
    """Quantize a language model on an ordinary computer, and see what it cost.

    \b
    Examples:
      thriftbit demo                              see it work, offline, in about two minutes
      thriftbit doctor --measure                  what this computer is, and how fast models run on it
      thriftbit fit Qwen/Qwen2.5-7B-Instruct      which precision of a model suits this computer
      thriftbit quantize ./my-model --to Q4_K_M   a 4-bit GGUF for llama.cpp, Ollama, LM Studio
      thriftbit chat my-model-Q4_K_M.gguf         talk to it, on this computer alone
      thriftbit serve my-model-Q4_K_M.gguf        serve it to other programs, as OpenAI does
      thriftbit compare my-model-BF16.gguf my-model-Q4_K_M.gguf
                                                  both answer side by side; can you tell which is which?
      thriftbit map ./my-model                    what it loses at every size; then --size 4GB and the like
      thriftbit measure my-model-Q4_K_M.gguf --against ./my-model
                                                  what it lost and gained; then `thriftbit report` shows it
      thriftbit inspect my-model-Q4_K_M.gguf      what is really in a file
      thriftbit find qwen3 4b                     models on this disk and on the Hub, and which fit here
      thriftbit ls                                the models on this disk; `pull` gets one, `rm` removes one
      thriftbit explain Q4_K_M                    what such a name means
      thriftbit export my-model-Q4_K_M.gguf --to ollama
                                                  for Ollama, LM Studio or llama.cpp, without a copy
      thriftbit mcp                               lets an assistant do all this; it asks you before it writes
    """
    if context.invoked_subcommand not in (None, config.name, completion.name) and not _asks_for_help():
        file = configuration_file()
        context.default_map = defaults_for(commands, read_configuration(file), file)


def _asks_for_help() -> bool:
    return bool({"-h", "--help"} & set(sys.argv[1:]))


for command in (
    *(doctor, fit, map_command, quantize, chat, serve, compare),
    *(measure, report, inspect, find, explain, export, mcp, demo),
    *(ls, pull, rm, alias, cache, config, completion),
):
    commands.add_command(command)
for command in (
    commands,
    *commands.commands.values(),
    *(c for g in (alias, cache, config) for c in g.commands.values()),
):
    command.params += message_options()


def main() -> None:
    watch_output()
    sys.exit(run())


def run() -> int:
    """Return the exit code: 0 done, 1 failed, 2 wrong usage, 3 the verdict is no, 4 cannot be measured, 130
    interrupted."""
    try:
        exit_code: int = commands.main(prog_name="thriftbit", standalone_mode=False) or 0
        sys.stdout.flush()
        return exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        return _fail(_with_hint(error), error.exit_code)
    except OutputGone as error:
        return error.exit_code
    except ThriftbitError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", INTERRUPTED)


def _with_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    message = re.sub(r"\s*\n\s*", " ", error.format_message())  # click lists choices on lines with tabs
    return message + (f"\nTry: {context.command_path} --help" if context else "")


def _fail(message: str, exit_code: int) -> int:
    if "--json" in sys.argv:
        with suppress(OutputError):
            print_json({"error": {"message": message, "exit_code": exit_code}})
    print_error(message)
    return exit_code
