"""How to break one rule on a hardened node, per kind: a shell command, and words its evidence must hold.

A rule whose kind cannot say it stands in BY_RULE. What a container cannot show stands in ELSEWHERE, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Break(NamedTuple):
    """``command`` breaks, ``words`` stand in reason or evidence.

    ``undo`` puts back what hardening cannot, ``also`` names rules that ask for the same thing of the same object.
    """

    command: str
    words: str
    undo: str = ""
    also: tuple[str, ...] = ()


def _sysctl(spec: Mapping[str, Any]) -> Break:
    key, wanted = next(iter(spec.items()))
    wrong = 0 if str(wanted) != "0" and not (isinstance(wanted, dict) and wanted.get("in") == [0]) else 1
    path = "/proc/sys/" + key.replace(".", "/")
    command = f"echo '{key} = {wrong}' > /etc/sysctl.d/99-zz-broken.conf; echo {wrong} > {path}"
    return Break(command, key, "rm /etc/sysctl.d/99-zz-broken.conf")


def _kernel_module(spec: Mapping[str, Any]) -> Break:
    """The module is put in place where the kernel lacks it: without one, the rule is met by its absence."""
    name = spec["disabled"][0]
    file = name.replace("_", "-")
    command = (
        f"for k in /lib/modules/*/; do mkdir -p $k/extra; touch $k/extra/{file}.ko;"
        f" echo 'extra/{file}.ko:' >> $k/modules.dep; done;"
        f" sed -i -E '/^(install|blacklist) {name}( |$)/d' /etc/modprobe.d/*.conf"
    )
    return Break(command, name)


def _mount_option(spec: Mapping[str, Any]) -> Break:
    path, options = next(iter(spec.items()))
    opposite = options[0].removeprefix("no")
    return Break(f"mount -o remount,{opposite} {path} || mount -i -o remount,bind,{opposite} {path}", path)


def _package(spec: Mapping[str, Any]) -> Break:
    """A name in the RPM database is what the rule asks about; a stub without files gives one."""
    if "absent" in spec:
        name = spec["absent"][0]
        return Break(f"/run/rules/stub-rpm {name}", name, f"rpm -e --nodeps --justdb {name} 2>/dev/null || true")
    name = (spec.get("present") or spec["any_of"])[0]
    return Break(f"rpm -e --nodeps --justdb {name}", name)


def _unit_enabled(unit: str) -> str:
    """A unit that is there and starts at boot, whether the node has one of that name or not."""
    section = (
        "[Socket]\\nListenStream=/run/broken.sock" if unit.endswith(".socket") else "[Service]\\nExecStart=/bin/true"
    )
    return (
        f"systemctl unmask -q {unit}; rm -f /etc/systemd/system/{unit};"
        f" [ -e /usr/lib/systemd/system/{unit} ] ||"
        f" printf '[Unit]\\n{section}\\n[Install]\\nWantedBy=multi-user.target\\n' > /usr/lib/systemd/system/{unit};"
        f" systemctl daemon-reload; systemctl enable -q {unit}"
    )


def _service(spec: Mapping[str, Any]) -> Break:
    if "masked" in spec:
        unit = spec["masked"][0]
        package = spec.get("or_package_absent")
        stub = f"rpm -q {package} || /run/rules/stub-rpm {package}; " if package else ""
        return Break(stub + _unit_enabled(unit), unit)
    unit = spec.get("enabled", spec.get("static", spec.get("disabled")))[0]
    if "disabled" in spec:
        return Break(_unit_enabled(unit), unit)
    return Break(f"systemctl mask -q {unit}", unit, f"systemctl unmask -q {unit}")


def _file_mode(spec: list[Mapping[str, Any]]) -> Break:
    item = spec[0]
    if "find" in item:
        name = item.get("names", ["broken.log"])[0].replace("*", "broken")
        path = f"{item['find']}/{name}"
        return Break(f"touch {path}; chmod 0640 {path}; {_spoil(item, path)}", path, f"rm -f {path}")
    path = item["path"]
    if item.get("state") == "absent":
        return Break(f"touch {path}", path)
    return Break(_spoil(item, path), path.split("*")[0].rstrip("/"))


def _spoil(item: Mapping[str, Any], path: str) -> str:
    """Take away the one thing the item asks for."""
    if {"max_mode", "any_of", "classes"} & set(item):
        return f"chmod 0777 {path}"
    return f"chown 65534 {path}" if "owner" in item else f"chgrp 65534 {path}"


#: A value that no benchmark takes, per keyword in lower case.
_WRONG_SSHD = {
    "loglevel": "QUIET",
    "usepam": "no",
    "permitrootlogin": "yes",
    "hostbasedauthentication": "yes",
    "permitemptypasswords": "yes",
    "permituserenvironment": "yes",
    "ignorerhosts": "no",
    "x11forwarding": "yes",
    "allowtcpforwarding": "yes",
    "disableforwarding": "no",
    "banner": "none",
    "maxauthtries": "6",
    "maxstartups": "100:30:200",
    "maxsessions": "64",
    "logingracetime": "600",
    "clientaliveinterval": "0",
    "clientalivecountmax": "0",
}


def _sshd(spec: Mapping[str, Any]) -> Break:
    """A drop-in that is read before ours: the first value wins."""
    keyword = next(name for name in spec if name.lower() in _WRONG_SSHD)
    wrong = f"{keyword} {_WRONG_SSHD[keyword.lower()]}"
    command = f"echo '{wrong}' > /etc/ssh/sshd_config.d/00-aa.conf; chmod 600 /etc/ssh/sshd_config.d/00-aa.conf"
    return Break(command, "00-aa.conf", "rm /etc/ssh/sshd_config.d/00-aa.conf")


def _login_defs(spec: Mapping[str, Any]) -> Break:
    key = next(iter(spec))
    return _login_defs_line(key, 99999)


def _banner(spec: Mapping[str, Any]) -> Break:
    path = next(iter(spec))
    return Break(f"echo 'Kernel \\r on an \\m' > {path}", path)


def _config_value(spec: list[Mapping[str, Any]]) -> Break:
    """A drop-in that is read last where there are drop-ins, else the line itself."""
    item = spec[0]
    key = next(iter(item["values"]))
    if "dropins" in item:
        path = f"{item['dropins'][0]}/zzz-broken.conf"
        text = f"[{item['section']}]\\n{key}=1G\\n"
        return Break(f"mkdir -p {item['dropins'][0]}; printf '{text}' > {path}", path)
    return Break(f"sed -i -E 's/^{key} *=.*/{key}=0/' {item['path']}", item["path"])


BY_KIND = {
    "config_value": _config_value,
    "sysctl": _sysctl,
    "kernel_module": _kernel_module,
    "mount_option": _mount_option,
    "package": _package,
    "service": _service,
    "file_mode": _file_mode,
    "sshd": _sshd,
    "login_defs": _login_defs,
    "banner": _banner,
}

_LOG = "$(find /var/log/audit -type f | head -1)"
_LOCKED = (
    "usermod -p '$6$salt$x' nobody; sed -i -E 's/^(nobody:[^:]*:[0-9]+):[^:]*:[^:]*:[^:]*:[^:]*:/\\1:{}:/' /etc/shadow"
)


def _sudoers(line: str) -> Break:
    """A file that is read after ours: the last value wins."""
    return Break(f"echo '{line}' > /etc/sudoers.d/zzz-broken", "zzz-broken", "rm /etc/sudoers.d/zzz-broken")


def _sshd_dropin(line: str, *also: str) -> Break:
    path = "/etc/ssh/sshd_config.d/00-aa.conf"
    return Break(f"echo '{line}' > {path}; chmod 600 {path}", "00-aa.conf", f"rm {path}", also)


def _login_defs_line(key: str, value: int) -> Break:
    return Break(f"sed -i -E 's/^{key}[ \\t].*/{key} {value}/' /etc/login.defs", key)


_AUDIT_LOG = "/var/log/audit/broken.log"

BY_RULE = {
    "tmp_separate_mount": Break("systemctl mask -q tmp.mount", "/tmp", "systemctl unmask -q tmp.mount"),
    "dev_shm_separate_mount": Break(
        "sed -i.broken '/\\/dev\\/shm/d' /etc/fstab",
        "/dev/shm",
        "mv /etc/fstab.broken /etc/fstab",
        also=("dev_shm_noexec",),
    ),
    # a key that others can read would make this sshd refuse the connection that is to mend it
    "sshd_private_host_key_permissions": Break(
        "cp -p /etc/ssh/ssh_host_ecdsa_key /etc/ssh/ssh_host_broken_key; chmod 0644 /etc/ssh/ssh_host_broken_key",
        "ssh_host_broken_key",
    ),
    "motd_permissions": Break("chmod 0777 /etc/motd", "/update-motd/motd"),  # what the link points at
    "sshd_access_limited": _sshd_dropin("PasswordAuthentication yes"),
    "sshd_root_login_disabled": _sshd_dropin("PermitRootLogin yes", "sshd_access_limited"),
    "sshd_crypto_policy_not_overridden": Break("echo CRYPTO_POLICY= >> /etc/sysconfig/sshd", "/etc/sysconfig/sshd"),
    "sudo_uses_pty": _sudoers("Defaults !use_pty"),
    "sudo_log_file_configured": _sudoers("Defaults !logfile"),
    "sudo_reauthentication_required": _sudoers("Defaults !authenticate"),
    "sudo_timeout_limited": _sudoers("Defaults timestamp_timeout=-1"),
    "password_minimum_age_set": _login_defs_line("PASS_MIN_DAYS", 0),
    "password_expiration_warning_set": _login_defs_line("PASS_WARN_AGE", 1),
    "inactive_accounts_locked": Break("useradd -D -f -1", "INACTIVE"),
    "audit_log_file_mode": Break(
        f"touch {_AUDIT_LOG}; chmod 0666 {_AUDIT_LOG}",
        _AUDIT_LOG,
        f"rm {_AUDIT_LOG}",
        also=("log_file_access_restricted",),
    ),
    "audit_log_file_owner": Break(
        f"touch {_AUDIT_LOG}; chmod 0640 {_AUDIT_LOG}; chown 65534 {_AUDIT_LOG}",
        _AUDIT_LOG,
        f"rm {_AUDIT_LOG}",
        also=("log_file_access_restricted",),
    ),
    "audit_log_file_group": Break(
        f"touch {_AUDIT_LOG}; chmod 0640 {_AUDIT_LOG}; chgrp 65534 {_AUDIT_LOG}",
        _AUDIT_LOG,
        f"rm {_AUDIT_LOG}",
        also=("log_file_access_restricted",),
    ),
}

_NO_MOUNT = "a container has no partitions: not applicable there"
_NO_CRON = "a stock node has neither cron nor at: not applicable there"
#: Rules that do not apply to a stand-in node, with the reason; the kinds' scenarios cover their states.
ELSEWHERE = {
    **dict.fromkeys(
        [
            *("var_nodev", "var_nosuid", "home_nodev", "home_nosuid"),
            *("var_tmp_noexec", "var_tmp_nosuid", "var_tmp_nodev"),
            *("var_log_nodev", "var_log_noexec", "var_log_nosuid"),
            *("var_log_audit_noexec", "var_log_audit_nodev", "var_log_audit_nosuid"),
        ],
        _NO_MOUNT,
    ),
    **dict.fromkeys(
        [
            *("cron_daemon_enabled", "crontab_permissions", "cron_hourly_permissions", "cron_daily_permissions"),
            *("cron_weekly_permissions", "cron_monthly_permissions", "cron_d_permissions"),
            *("cron_users_restricted", "at_users_restricted"),
        ],
        _NO_CRON,
    ),
}


def how(slug: str, require: Mapping[str, Any]) -> Break:
    """The way to break a rule. Raises KeyError when neither its kind nor BY_RULE knows one."""
    if slug in BY_RULE:
        return BY_RULE[slug]
    kind = next(kind for kind in require if kind in BY_KIND)
    return BY_KIND[kind](require[kind])


def takes_a_package_away(require: Mapping[str, Any]) -> bool:
    """Without their package other rules do not apply any more: these are broken last."""
    return "absent" not in require.get("package", {"absent": []})
