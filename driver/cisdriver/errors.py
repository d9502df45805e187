"""Every way a command can end, with its exit code. This is the one place that knows them.

0 is: done, and compliant as far as the command can tell.
"""

from __future__ import annotations


class CisdriverError(Exception):
    """An end that is not 0. ``message`` names the object and what is wrong, ``remedy`` what to do."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class FindingsError(CisdriverError):
    """The work is done; the audit has findings beyond those that are accepted."""

    exit_code = 1


class UsageError(CisdriverError):
    """What was asked cannot be asked so: flags, settings, rule ids, or something this machine lacks."""

    exit_code = 2


class BakeError(CisdriverError):
    """A node could not be hardened, or an image could not be built or registered."""

    exit_code = 3


class DeployError(CisdriverError):
    """A cluster could not be deployed, or not be destroyed."""

    exit_code = 4


class ScanError(CisdriverError):
    """An audit or a scan could not look, so nothing is known."""

    exit_code = 5


class VerificationError(CisdriverError):
    """A node would not serve any more, a workload does not run, or it could not be verified."""

    exit_code = 6


class InterruptedRunError(CisdriverError):
    """Stopped by Ctrl-C, SIGTERM or an answer, after cleaning up."""

    exit_code = 130


EXIT_CODES = {
    0: "Done, and compliant.",
    **{
        error.exit_code: (error.__doc__ or "").splitlines()[0]
        for error in (
            FindingsError,
            UsageError,
            BakeError,
            DeployError,
            ScanError,
            VerificationError,
            InterruptedRunError,
        )
    },
}
