"""The command line. A command's module is imported when it is called; ``crossfade --help`` imports none of them."""

from __future__ import annotations

import atexit
import difflib
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from crossfade.errors import UserError

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError, Token


class Command(NamedTuple):
    """A command: its help, and where its function is, which returns the exit status (None for 0)."""

    function: str
    help: str


COMMANDS = {
    "compare": Command("crossfade.cli.compare:compare", "Would another loss help on your data? A verdict."),
    "status": Command("crossfade.cli.store:status", "What a store holds: done, failed and missing trials."),
    "report": Command("crossfade.cli.store:report", "Write the HTML page again from a store."),
    "export": Command("crossfade.cli.store:export", "Write a store's results (or curves) as CSV or Parquet."),
    "stats": Command("crossfade.cli.stats:stats", "Ranks, tests and intervals for any table of results."),
    "data": Command("crossfade.cli.data:data", "Data sets that the lab knows: what is here, and how to get the rest."),
    "list": Command("crossfade.cli.data:show", "Methods, networks and studies that can be named."),
}

# ``crossfade run NAME``
STUDIES = {
    "table1": Command("crossfade.cli.run:table1", "Table 1: CE and its mixtures on CIFAR-100 and CINIC-10."),
    "table2": Command("crossfade.cli.run:table2", "Table 2: CE and its mixtures on ImageNet."),
    "table3": Command("crossfade.cli.run:table3", "Table 3: clothing reviews, five LSTMs."),
    "figure2": Command("crossfade.cli.run:figure2", "Figure 2: BERT on GLUE, and the methods' profile."),
    "table4": Command("crossfade.cli.run:table4", "Table 4, Figure 3: losses on the 121 UCI sets."),
    "map": Command("crossfade.cli.run:noise_map", "Where which loss pays: wrong labels, few rows, two networks."),
    "table5": Command("crossfade.cli.run:table5", "Table 5: complement objective training (COT)."),
    "table6": Command("crossfade.cli.run:table6", "Table 6: more regularisation, ResNet34 on CINIC-10."),
    "motivating": Command("crossfade.cli.run:motivating", "A motivating example: wrong images below p_y = 0.2."),
    "finetune": Command("crossfade.cli.run:finetune", "Objectives for language models, where p is large or small."),
    "figure1": Command("crossfade.cli.why:figure1", "Figure 1: the gradient's size over p, for every loss."),
    "taylor": Command("crossfade.cli.why:taylor", "Eq. 11: CE and EL, the remainder, and the bounds quoted."),
    "dynamics": Command("crossfade.cli.why:dynamics", "Who moves from wrong to right in training."),
    "escape": Command("crossfade.cli.why:escape", "Eq. 15-18: escaping efficiency, measured."),
    "normmatched": Command("crossfade.cli.run:normmatched", "Eq. 20-22: CE at the mixture's gradient volume."),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 some trials failed, 2 a request that can't be carried out, 128 + n signal n.

    Schedulers, containers and closed terminals send SIGTERM and SIGHUP: they stop a command as Ctrl-C does.

    Args:
        arguments: The command; None for the one of this process, which then ends without the interpreter's own end:
            that takes a while, in which it can't listen to signals any more.
    """
    received: list[int] = []
    ended: list[int] = []  # the status, once the command has done its work

    def interrupt(number: int, frame: object) -> None:
        if ended:
            os._exit(128 + number)
        received.append(number)
        raise KeyboardInterrupt

    def leave() -> None:
        if ended:  # else it was an error with a traceback
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(ended[0])

    _check_streams()
    if arguments is None:
        atexit.register(leave)  # the first one, which runs after all others
    with ExitStack() as restored:
        for number in (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")):
            # What nohup ignores stays ignored; only the main thread may listen.
            alone = threading.current_thread() is threading.main_thread()
            usual = (signal.SIG_DFL, signal.default_int_handler)
            if number is not None and alone and signal.getsignal(number) in usual:
                restored.callback(signal.signal, number, signal.signal(number, interrupt))
        status = _run(sys.argv[1:] if arguments is None else list(arguments), received, ended)
        ended[:] = [status]
        if arguments is None:
            restored.pop_all()
    sys.exit(status)


def _check_streams() -> None:
    """Let output go nowhere where it is closed, and let it hold marks for characters that its encoding doesn't have."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def _run(given: Sequence[str], received: Sequence[int], ended: list[int]) -> int:
    # cyclopts takes a lone hyphen for an option, but only an output is one that way.
    arguments = [
        "/dev/stdin" if word == "-" and before not in ("--json", "--report") else word
        for before, word in zip(["", *given], given, strict=False)
    ]
    # torch's own imports warn of what torch will change: nothing that a command's user could do.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\..*")
    try:
        from cyclopts import CycloptsError
    except ImportError:
        return _stop("the command line needs the lab: pip install 'crossfade[lab]'")
    status: int | None = None
    try:
        app = _app(called=arguments)
        status = app(arguments, exit_on_error=False, print_error=False, result_action="return_value") or 0
        sys.stdout.flush()
        ended.append(status)
        return status
    except KeyboardInterrupt as interrupt:
        return _stop(str(interrupt) or "stopped", 128 + (*received, signal.SIGINT)[0])
    except BrokenPipeError:  # the reader, `head` say, has seen enough; perhaps before the work was done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13 if status is None else status  # SIGPIPE
    except MemoryError:
        return _stop("not enough memory; use fewer rows, a larger --batch-size, or --drop columns with many categories")
    except ModuleNotFoundError as error:
        if (error.name or "crossfade").startswith("crossfade"):
            raise
        return _stop(f"{error.name} isn't installed; pip install 'crossfade[lab]'")
    except OSError as error:  # a name that is too long, a folder that may not be read, a full disk
        return _stop(f"{error.filename or 'writing'}: {error.strerror or error}")
    except UserError as error:
        return _stop(str(error))
    except CycloptsError as error:
        return _stop(_explained(error))


def _app(called: Sequence[str]) -> App:
    from importlib.metadata import version

    from cyclopts import App, Parameter

    app = App(
        name="crossfade",
        help="Train classifiers for accuracy: mix cross entropy and expectation loss 1 - p_y, fade into the latter.",
        help_epilogue="Start with `crossfade compare`: four real data sets, nothing to download, under a minute.",
        version=lambda: version("crossfade"),
        suppress_keyboard_interrupt=False,
        help_format="markdown",
        default_parameter=Parameter(negative="", converter=_converted),
    )
    studies = App(name="run", help="Run one of the paper's studies; resumes by itself.", sort_key=0.5)
    for parent, commands, word in ((app, COMMANDS, called[:1]), (studies, STUDIES, called[1:2])):
        for place, (name, command) in enumerate(commands.items()):
            # The command that is called explains itself in full, by its docstring; the others must not be imported.
            help_ = None if word == [name] else command.help
            parent.command(command.function, name=name, help=help_, sort_key=place)
    app.command(studies)
    app.register_install_completion_command()
    return app


def _converted(type_: Any, tokens: Sequence[Token]) -> Any:
    """Return an option's value; a number of things must be whole (cyclopts would round 1.5)."""
    from cyclopts import convert

    kinds = get_args(type_) or (type_,)
    for token in tokens:
        if int in kinds and not re.fullmatch(r"[-+]?\d+", token.value):
            raise ValueError(f"expected a whole number, got {token.value!r}")
    return convert(type_, tokens)


def _explained(error: CycloptsError) -> str:
    """Return in one line what is wrong with the words of a command."""
    from cyclopts import MissingArgumentError, UnknownCommandError, UnusedCliTokensError

    chain, words = " ".join(("crossfade", *(error.command_chain or ()))), error.unused_tokens or [""]
    if isinstance(error, UnknownCommandError):
        known = {name: name for name in (*COMMANDS, "run")} | {name: f"run {name}" for name in STUDIES}
        near = difflib.get_close_matches(words[0].lower(), known, n=1, cutoff=0.5)
        there = [f"compare {words[0]}"] if os.path.exists(words[0]) else [known[name] for name in near]
        named = STUDIES if error.command_chain else (*COMMANDS, "run")
        hint = f"did you mean crossfade {there[0]}?" if there else f"there are {', '.join(named)}"
        return f"no command {words[0]!r}: {hint}"
    if isinstance(error, UnusedCliTokensError):
        return f"unexpected {' '.join(words)}: see {chain} --help"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{error.keyword or error.argument.name} needs a value: see {chain} --help"
    return str(error)


def _stop(why: str, status: int = 2) -> int:
    """Print why a command stops in one line, and return its exit status."""
    print("crossfade:", *why.replace("/dev/stdin", "standard input").split(), file=sys.stderr)
    return status
