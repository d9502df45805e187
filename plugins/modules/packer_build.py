#!/usr/bin/python
# Copyright the cisdriver authors. Apache-2.0.
"""Module packer_build: run Packer so that it can always be stopped, and say why it failed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packer_build
author: The cisdriver authors
short_description: Build an image with Packer 1.6.6 or newer
description:
  - Runs Packer in a session of its own, with its output in C(packer.log) and its process id in C(packer.pid).
  - When the module is interrupted or the time is up, Packer is interrupted, and has ten minutes to clean up.
  - Packer 1.7 and newer are given the template's folder, after C(packer init), older ones the file alone.
options:
  state:
    description:
      - V(built) runs the build. V(present) only looks for Packer and its version.
      - V(stopped) interrupts the Packer that still runs in O(directory), and waits for its end.
    type: str
    choices: [built, present, stopped]
    default: built
  binary:
    description: Packer, by name or path.
    type: str
    default: packer
  template:
    description: Path of the template file. Needed for V(built).
    type: path
  variables:
    description: Path of the file with its variables. Needed for V(built).
    type: path
  manifest:
    description: Path of the manifest that the template writes. Needed for V(built).
    type: path
  directory:
    description: Where Packer runs, and the log and the process id are written. Needed for V(built) and V(stopped).
    type: path
  timeout:
    description: Seconds after which the build is interrupted.
    type: int
    default: 5400
"""

EXAMPLES = r"""
- name: Build by Packer
  cisdriver.amazon_linux.packer_build:
    template: eks.pkr.hcl
    variables: build.pkrvars.json
    manifest: manifest.json
    directory: /tmp/run
"""

RETURN = r"""
version:
  description: Packer's version.
  returned: state is present or built
  type: str
image_id:
  description: The image that was registered.
  returned: state is built
  type: str
seconds:
  description: How long it took.
  returned: state is built
  type: float
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

_GRACE_SECONDS = 600
_INSTALL = (
    "Install it (Debian: apt install packer; elsewhere: https://developer.hashicorp.com/packer/install), "
    "or say by image_packer_binary where it is."
)
#: Packer must not phone home, nor colour what goes to a file.
_ENV = {"CHECKPOINT_DISABLE": "1", "PACKER_NO_COLOR": "1"}


class _InterruptedError(Exception):
    """Ansible wants this module to end."""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["built", "present", "stopped"], "default": "built"},
            "binary": {"type": "str", "default": "packer"},
            "template": {"type": "path"},
            "variables": {"type": "path"},
            "manifest": {"type": "path"},
            "directory": {"type": "path"},
            "timeout": {"type": "int", "default": 5400},
        },
        required_if=[
            ("state", "built", ["template", "variables", "manifest", "directory"]),
            ("state", "stopped", ["directory"]),
        ],
    )
    if module.params["state"] == "stopped":
        module.exit_json(changed=_stop_other(Path(module.params["directory"])))
    binary, version = _packer(module)
    if module.params["state"] == "present":
        module.exit_json(changed=False, version=version)
    _build(module, binary, version)


def _packer(module: AnsibleModule) -> tuple[str, str]:
    """Path and version of Packer. Red Hat's cracklib has another program of this name, hence the look at the output."""
    binary = shutil.which(module.params["binary"])
    if binary is None:
        module.fail_json(msg=f"{module.params['binary']} is not found: Packer is needed to bake. {_INSTALL}")
    _, out, err = module.run_command([binary, "version"], environ_update=_ENV)
    found = re.search(r"^Packer v(\d+\.\d+\.\d+)", out, re.MULTILINE)
    if not found:
        module.fail_json(
            msg=f"{binary} is not HashiCorp's Packer, its version is {(out + err).strip()[:200]}. {_INSTALL}"
        )
    return binary, found[1]


def _build(module: AnsibleModule, binary: str, version: str) -> None:
    directory, template = Path(module.params["directory"]), Path(module.params["template"])
    log, started = directory / "packer.log", time.monotonic()
    target = str(template)
    if tuple(map(int, version.split("."))) >= (1, 7, 0):
        target = str(template.parent)
        code, out, err = module.run_command([binary, "init", target], environ_update=_ENV)
        if code:
            module.fail_json(msg=f"'packer init {target}' could not get the plugins: {(err or out).strip()[-500:]}")
    command = [binary, "build", "-color=false", "-timestamp-ui", f"-var-file={module.params['variables']}", target]
    code, ended = _run(command, directory, log, module.params["timeout"])
    seconds = round(time.monotonic() - started, 1)
    if ended:
        module.fail_json(msg=f"Packer was interrupted: {ended}. Its log is {log}.", version=version, seconds=seconds)
    if code:
        why = _why(log.read_text(encoding="utf-8", errors="replace"))
        module.fail_json(msg=f"Packer ended with {code}: {why} Its log is {log}.", version=version, seconds=seconds)
    image = _image(Path(module.params["manifest"]))
    module.exit_json(changed=True, version=version, image_id=image, seconds=seconds)


def _run(command: list[str], directory: Path, log: Path, timeout: int) -> tuple[int, str]:
    """Exit code, and why it was interrupted, if it was.

    A session of its own, so that a signal reaches Packer, its plugins and the ansible-playbook below them as one group,
    and only when we send it: Packer's wrapper does not pass SIGINT on to the Packer that does the work.
    """

    def interrupt(number: int, _frame: object) -> None:
        raise _InterruptedError(f"signal {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupt)
    pid = directory / "packer.pid"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=directory, env={**os.environ, **_ENV}, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        pid.write_text(f"{process.pid}\n", encoding="ascii")
        try:
            return process.wait(timeout), ""
        except subprocess.TimeoutExpired:
            ended = f"not done after {timeout} s"
        except _InterruptedError as error:
            ended = str(error)
        finally:
            if process.poll() is None:
                _end_group(process.pid, lambda: process.poll() is not None)
            pid.unlink(missing_ok=True)
    return process.wait(), ended


def _end_group(group: int, ended) -> None:  # type: ignore[no-untyped-def]
    """Interrupt, wait for the clean-up, and kill only what does not end."""
    for number, seconds in ((signal.SIGINT, _GRACE_SECONDS), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(_InterruptedError):  # told again to end: we are at it
                if ended():
                    return
                time.sleep(0.2)


def _stop_other(directory: Path) -> bool:
    """Interrupt the Packer whose id stands in the directory; False when none runs there."""
    pid = directory / "packer.pid"
    if not pid.is_file():
        return False
    group = int(pid.read_text(encoding="ascii"))
    status = Path(f"/proc/{group}/cmdline")
    running = status.is_file() and b"build" in status.read_bytes()
    if running:
        _end_group(group, lambda: not status.is_file() or not status.read_bytes())
    pid.unlink(missing_ok=True)
    return running


def _why(log: str) -> str:
    """The sentence of Packer's output that tells why the build failed.

    Packer says "Build 'x' errored ...: REASON" at the end, or "Error: REASON" for a template it cannot use. When the
    reason is that Ansible failed, Ansible's own last "fatal:" line says more.
    """
    fatal = re.findall(r"(?:fatal: \[.*?\]|\[ERROR\]): (.*)", log)
    errored = re.findall(r"errored(?: after .*?)?: (.*)", log)
    if fatal and (not errored or "ansible" in errored[-1].lower()):
        return _ansible_message(fatal[-1]).rstrip(".") + "."
    told = errored or re.findall(r"Error: (.*(?:\n\n?\s*\*.*)*)", log) or log.strip().splitlines()[-1:]
    return (told[-1].strip()[:500].rstrip(".") + ".") if told else "it said nothing."


def _ansible_message(line: str) -> str:
    """The ``msg`` of Ansible's "FAILED! => {...}" or "UNREACHABLE! => {...}"; else the line itself."""
    with contextlib.suppress(ValueError, KeyError):
        return str(json.loads(line.partition(" => ")[2])["msg"]).strip()[:500]
    return line.strip()[:500]


def _image(manifest: Path) -> str:
    """The image id of the last run: the manifest is a list to which each run adds its ``artifact_id``, "region:ami"."""
    document = json.loads(manifest.read_text(encoding="utf-8"))
    mine = [build for build in document["builds"] if build["packer_run_uuid"] == document["last_run_uuid"]]
    return str(mine[-1]["artifact_id"].rpartition(":")[2])


if __name__ == "__main__":
    main()
