"""``xee-tf completion``."""

from __future__ import annotations

from typing import Literal

from xee_tf.cli.command import command
from xee_tf.cli.outcome import Outcome

__all__ = ["completion"]


@command()
def completion(shell: Literal["bash", "zsh", "fish"], /) -> Outcome:
    """Print a script with which a shell completes commands, options, choices and files.

    For bash, add this line to ~/.bashrc: source <(xee-tf completion bash). For zsh, save the script as
    _xee-tf in a folder of $fpath. For fish, save it as ~/.config/fish/completions/xee-tf.fish. The script
    does not start Python: print it again after an update.

    Parameters
    ----------
    shell
        The shell.
    """
    from xee_tf_cli import app

    text = app.generate_completion(shell=shell)
    # Where the script has no word, bash completes files itself, and escapes spaces in their names.
    text = text.replace("\ncomplete -F ", "\ncomplete -o default -F ")
    text = text.replace('COMPREPLY=( $(compgen -f -- "${cur}") )', "COMPREPLY=()")
    return Outcome(text.rstrip("\n"), {"shell": shell, "script": text})
