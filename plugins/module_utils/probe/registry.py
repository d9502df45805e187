# Copyright the cisdriver authors. Apache-2.0.
"""Every kind and its probe. A probe is ``check(node, spec) -> Finding``; see probe/core.py."""

from __future__ import annotations

from ansible_collections.cisdriver.amazon_linux.plugins.module_utils.probe import (
    banner,
    config_value,
    file_mode,
    kernel_module,
    login_defs,
    mount_option,
    mount_point,
    package,
    service,
    shadow,
    sshd,
    sudo,
    sysctl,
)

#: Kinds a rule may ``require``.
KINDS = {
    "banner": banner.check,
    "config_value": config_value.check,
    "file_mode": file_mode.check,
    "kernel_module": kernel_module.check,
    "login_defs": login_defs.check,
    "mount_option": mount_option.check,
    "mount_point": mount_point.check,
    "package": package.check,
    "service": service.check,
    "shadow": shadow.check,
    "sshd": sshd.check,
    "sudo": sudo.check,
    "sysctl": sysctl.check,
}
