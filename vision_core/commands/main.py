"""Entry point of the command line: verbs, messages, exit codes. Imports no torch."""

import argparse
import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

from vision_core.commands.parser import Build, OwnVerb, parse
from vision_core.config.schema import Config
from vision_core.console import debugging, is_silent
from vision_core.environment import describe_lost_gpu, is_lost_gpu, is_out_of_memory, quiet_libraries
from vision_core.errors import EXIT_INTERRUPTED, ConfigError, EnvironmentFault, Interrupted, UserError, one_line
from vision_core.signals import forget, interrupt

_MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
                   errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE}  # fmt: skip
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_LESS_MEMORY = {
    "train": "Use a smaller train.batch_size, fewer train.workers, or a machine with more.",
    "predict": "Use a smaller encoder.batch_size where the task has one, --device cpu, or a machine with more.",
    "features": "Use a smaller encoder.batch_size, --device cpu, or a machine with more.",
    "export": "Use a smaller --size, or a machine with more.",
}
_UNREPEATABLE = "does not have a deterministic implementation"  # torch's text


def run(
    config_class: type[Config], build: Build, argv: Sequence[str] | None = None, own: Sequence[OwnVerb] = ()
) -> int:
    """Parse the command line, run its verb, and return the exit code.

    Args:
        config_class: Configuration of the task.
        build: Makes the pipeline of the task, whose imports are delayed until then.
        argv: Words of the command line; None: those of this process.
        own: Verbs that only this task has.
    """
    quiet_libraries()
    before = [signal.getsignal(number) for number in _STOPPING]
    forget()
    _on_stop([interrupt] * len(_STOPPING))
    arguments = argparse.Namespace(debug=False)
    try:
        arguments = parse(config_class, argv, own)
        with debugging() if arguments.debug else nullcontext():
            return int(arguments.action(arguments, config_class, build))
    except KeyboardInterrupt:
        return _stopped(Interrupted("Stopped."), arguments)
    except UserError as error:
        return _stopped(error, arguments)
    except BrokenPipeError:
        return _unheard()
    except Exception as error:
        fault = _foreseen(error, getattr(arguments, "verb", ""))
        return _stopped(fault, arguments) if fault else _our_bug(error, arguments)
    finally:
        _on_stop(before)
        forget()


def _on_stop(handlers: Sequence[Any]) -> None:
    try:
        for number, handler in zip(_STOPPING, handlers, strict=True):
            signal.signal(number, handler)
    except (ValueError, TypeError):  # not in the main thread, or set by foreign code, which handles signals
        return


def _stopped(error: UserError, arguments: argparse.Namespace) -> int:
    if is_silent() and (error.is_repeated or isinstance(error, Interrupted)):
        return error.exit_code
    sys.stderr.write(error.lines() + "\n")
    command: str = getattr(arguments, "resume_command", "")
    if isinstance(error, Interrupted) and command:
        sys.stderr.write(f"Resume with: {command}\n")
    if arguments.debug:
        traceback.print_exc()
    return error.exit_code


def _foreseen(error: Exception, verb: str) -> UserError | None:
    """Convert an error of disk, memory or GPU to a user error, and one that train.deterministic causes."""
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
        named = f"'{error.filename}': " if error.filename else ""
        return EnvironmentFault(f"{named}{os.strerror(error.errno)}. Fix that, then run the same command again.")
    if is_out_of_memory(error):
        remedy = _LESS_MEMORY.get(verb, "Close other programs, or use a machine with more.")
        return EnvironmentFault(f"Memory is used up. {remedy}")
    if is_lost_gpu(error):
        again = "Continue from the last checkpoint with --resume" if verb == "train" else "Run the same command again"
        return EnvironmentFault(f"{describe_lost_gpu(error)} {again}.")
    if _UNREPEATABLE in str(error):
        operation = str(error).partition(_UNREPEATABLE)[0].strip()
        return ConfigError(
            f"train.deterministic: '{operation}' gives other bits in each run on this GPU. Use train.device=cpu, or "
            "set train.deterministic=false."
        )
    return None


def _unheard() -> int:
    """End after the output was closed by its reader (``| head``)."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes
    return EXIT_INTERRUPTED


def _our_bug(error: Exception, arguments: argparse.Namespace) -> int:
    if arguments.debug:
        traceback.print_exc()
    sys.stderr.write(
        f"error[INTERNAL] {type(error).__name__}: {one_line(str(error))}. This is a fault of domainsight, not yours: "
        "run the same command with --debug and report what it prints.\n"
    )
    return 1
