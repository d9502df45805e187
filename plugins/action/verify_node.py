# Copyright the cisdriver authors. Apache-2.0.
"""Action verify_node: runs the module, then logs in a second time, from the controller, before the first login ends."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.cisdriver.amazon_linux.plugins.plugin_utils import second_login


class ActionModule(ActionBase):
    """Ansible's entry point."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        result.update(self._execute_module(task_vars=task_vars))
        if not result.get("failed") and not result.get("unreachable"):
            result["checks"].append(self._second_login())
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _second_login(self) -> dict[str, Any]:
        """The check, by the options that let the first connection in, wherever they were set."""
        connection = self._connection
        if connection.transport != "ssh":
            return second_login.not_applicable(f"Ansible reaches the node by {connection.transport}, not by ssh")
        if connection.get_option("password") or self._play_context.password:
            return second_login.not_applicable("Ansible logs in with a password, and ssh asks a person alone for one")
        arguments = [
            part
            for name in ("ssh_args", "ssh_common_args", "ssh_extra_args")
            for part in shlex.split(connection.get_option(name) or "")
        ]
        if not connection.get_option("host_key_checking"):
            arguments.append("-oStrictHostKeyChecking=no")
        become = connection.become
        return second_login.check(
            second_login.Login(
                host=connection.get_option("host"),
                user=connection.get_option("remote_user"),
                port=connection.get_option("port"),
                key=connection.get_option("private_key_file"),
                arguments=tuple(arguments),
                executable=connection.get_option("ssh_executable"),
                sudo_password=become.get_option("become_pass", playcontext=self._play_context) if become else None,
            )
        )
