"""What a command says when it cannot go on: one line with what to do about it, and the exit status of its kind."""

from __future__ import annotations

import click


class Failure(click.ClickException):
    """It failed while running: exit status 1."""

    exit_code = 1


class Misuse(Failure):
    """Wrong usage or configuration: exit status 2."""

    exit_code = 2


class CannotStart(Failure):
    """It could not start, a port being taken or a state folder locked: exit status 3."""

    exit_code = 3
