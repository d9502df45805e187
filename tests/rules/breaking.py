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
        return f"chmod 0775 {path}"
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


_AUDIT_RULES = "/etc/audit/rules.d/50-cis.rules"


def _audit_rules(spec: Mapping[str, Any]) -> Break:
    """The lines of the first item go from the file. They are put back: a locked kernel takes no load to mend it."""
    also = ("audit_running_rules_match_disk",)
    if spec.get("running_as_on_disk"):
        return Break(f"echo '-w /etc/broken -p wa -k broken' >> {_AUDIT_RULES}", "/etc/broken")
    if spec.get("immutable"):
        lock = "/etc/audit/rules.d/99-finalize.rules"
        return Break(f"mv {lock} /run/broken.rules", "last -e", f"mv /run/broken.rules {lock}", also)
    item = spec["rules"][0] if "rules" in spec else {"path": "/usr/bin/su"}
    words = item.get("watch") or item.get("sudo_log") or item.get("path") or item["syscalls"][0]
    named = {"path": "path=" + words, "syscalls": "-S " + words}
    pattern = named.get("path" if "path" in item else "syscalls" if "syscalls" in item else "", words)
    command = f"cp -p {_AUDIT_RULES} /run/broken.rules; sed -i -E '\\%{pattern}[ ,]%d' {_AUDIT_RULES}"
    return Break(command, words, f"cp -p /run/broken.rules {_AUDIT_RULES}", also)


def _boot_args(spec: Mapping[str, Any]) -> Break:
    """In the entry of the next boot; the running kernel stays as it is."""
    entries = "/boot/loader/entries"
    if "absent" in spec:
        return Break(f"sed -i '/^options/s/$/ {spec['absent'][0]}/' {entries}/*.conf", entries)
    return Break(f"sed -i -E '/^options/s/ {next(iter(spec['present']))}=[^ ]+//' {entries}/*.conf", entries)


def _selinux(spec: Mapping[str, Any]) -> Break:
    """The exception from enforcing holds only while the rest is right."""
    key, value = ("SELINUXTYPE", "minimum") if "policy" in spec else ("SELINUX", "disabled")
    command = f"sed -i 's/^{key}=.*/{key}={value}/' /etc/selinux/config"
    return Break(command, "/etc/selinux/config", also=("selinux_enforcing",))


#: A value that no rule on the journal takes.
_WRONG_JOURNAL = {"Storage": "volatile", "Compress": "no", "ForwardToSyslog": "yes", "SystemMaxUse": "infinity"}
#: What rests on a journal that is kept: two exceptions, and that rsyslog's rules do not apply.
_OF_A_KEPT_JOURNAL = ("rsyslog_installed", "rsyslog_enabled")
_OF_RSYSLOG = ("journald_forwards_to_rsyslog", "rsyslog_file_permissions", "rsyslog_sends_to_remote_host")


def _journald(spec: Mapping[str, Any]) -> Break:
    """A drop-in that is read last, and has been read."""
    key = next(iter(spec["Journal"]))
    path = f"/etc/systemd/journald.conf.d/zzz-{key}.conf"
    text = f"[Journal]\\n{key}={_WRONG_JOURNAL[key]}\\n"
    also = {"Storage": _OF_A_KEPT_JOURNAL + _OF_RSYSLOG, "SystemMaxUse": _OF_A_KEPT_JOURNAL}.get(key, ())
    command = f"mkdir -p {path.rpartition('/')[0]}; printf '{text}' > {path}; systemctl restart systemd-journald"
    return Break(command, path, also=also)


BY_KIND = {
    "audit_rules": _audit_rules,
    "config_value": _config_value,
    "journald": _journald,
    "sysctl": _sysctl,
    "kernel_module": _kernel_module,
    "mount_option": _mount_option,
    "package": _package,
    "service": _service,
    "file_mode": _file_mode,
    "sshd": _sshd,
    "login_defs": _login_defs,
    "banner": _banner,
    "boot_args": _boot_args,
    "crypto_policy": lambda _spec: Break("echo LEGACY > /etc/crypto-policies/config", "/etc/crypto-policies/config"),
    "repository": lambda _spec: Break(
        "sed -i s/^repo_gpgcheck=1/repo_gpgcheck=0/ /etc/yum.repos.d/amazonlinux.repo", "amazonlinux.repo"
    ),
    "selinux": _selinux,
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


def _passwd(edit: str, words: str, undo: str, *also: str) -> Break:
    """An edit of sed's in /etc/passwd."""
    return Break(f"sed -i '{edit}' /etc/passwd", words, f"sed -i '{undo}' /etc/passwd", also)


def _profile(name: str, line: str) -> Break:
    path = f"/etc/profile.d/{name}"
    return Break(f"echo '{line}' > {path}", path, f"rm {path}")


_AUDIT_LOG = "/var/log/audit/broken.log"
_PROGRAM = "/usr/local/bin/broken program"


def _listener(port: int, *also: str) -> Break:
    """A service of somebody's, which stays until it is stopped: hardening closes nothing by itself."""
    start = f"systemd-run -q --unit=broken-{port} python3 -m http.server {port}"
    wait = f"for i in $(seq 50); do ss -Hltn | grep -q ':{port} ' && break; sleep 0.1; done"
    return Break(f"{start}; {wait}", f"broken-{port}.service", f"systemctl stop broken-{port}", also)


BY_RULE = {
    "journald_file_permissions": Break(
        "sed 's/journal 0640/journal 0644/' /usr/lib/tmpfiles.d/systemd.conf > /etc/tmpfiles.d/systemd.conf",
        "/etc/tmpfiles.d/systemd.conf",
    ),
    "rsyslog_remote_input_disabled": Break(
        """echo 'module(load="imtcp")' > /etc/rsyslog.conf""", "/etc/rsyslog.conf:1", "rm /etc/rsyslog.conf"
    ),
    "logrotate_configured": Break("systemctl stop logrotate.timer", "logrotate.timer (running)"),
    "password_change_dates_in_past": Break(
        "cp -p /etc/shadow /run/shadow.broken;"
        " sed -i 's|^ec2-user:.*|ec2-user:$6$salt$x:99999:1:365:7:30::|' /etc/shadow",
        "ec2-user",
        "cp -p /run/shadow.broken /etc/shadow",
    ),
    # a shell that /etc/shells does not name: the account has no home to be judged for then
    "system_accounts_secured": Break("usermod -s /bin/ksh games", "games"),
    # files of root's home now have another group than root
    "root_password_set": Break("passwd -q -l root", "root", "passwd -q -u root"),
    "root_primary_group_zero": _passwd(
        "s/^root:x:0:0:/root:x:0:1:/", "root", "s/^root:x:0:1:/root:x:0:0:/", "dot_files_restricted"
    ),
    "shell_timeout_configured": _profile("aa-broken.sh", "TMOUT=0"),
    "default_umask_restrictive": _profile("zzz-broken.sh", "umask 022"),
    "passwords_shadowed": _passwd("s/^ec2-user:x:/ec2-user:*:/", "ec2-user", "s/^ec2-user:[*]:/ec2-user:x:/"),
    "shadow_passwords_not_empty": Break(
        "sed -i 's/^ec2-user:[^:]*:/ec2-user::/' /etc/shadow",
        "ec2-user",
        "sed -i 's/^ec2-user:[^:]*:/ec2-user:!!:/' /etc/shadow",
    ),
    "passwd_groups_exist": _passwd("s/^games:x:12:100:/games:x:12:4242:/", "games", "s/:x:12:4242:/:x:12:100:/"),
    "uids_unique": _passwd("$a broken:x:12:100::/:/usr/sbin/nologin", "broken", "/^broken:/d"),
    "gids_unique": Break("echo broken:x:12: >> /etc/group", "broken", "sed -i '/^broken:/d' /etc/group"),
    "user_names_unique": _passwd("$a games:x:4242:100::/:/usr/sbin/nologin", "games", "/^games:x:4242:/d"),
    "group_names_unique": Break("echo mail:x:4242: >> /etc/group", "mail", "sed -i '/^mail:x:4242:/d' /etc/group"),
    "root_path_safe": Break(
        "mkdir /opt/broken; chown 65534 /opt/broken; echo 'PATH=$PATH:/opt/broken' > /etc/profile.d/broken.sh",
        "/opt/broken",
        "rm -r /opt/broken /etc/profile.d/broken.sh",
    ),
    "root_only_uid_zero": _passwd("$a broken:x:0:0::/:/usr/sbin/nologin", "broken", "/^broken:/d", "uids_unique"),
    # no more than that: sshd refuses the key of a home that others can write to
    "home_directories_configured": Break("chmod 0755 /home/ec2-user", "/home/ec2-user"),
    "dot_files_restricted": Break("chmod 0664 /home/ec2-user/.bashrc", "/home/ec2-user/.bashrc"),
    "chrony_configured": Break("sed -i 's/ *-u chrony//' /etc/sysconfig/chronyd", "/etc/sysconfig/chronyd"),
    "mail_agent_local_only": _listener(25, "nonessential_listeners_removed"),
    "nonessential_listeners_removed": _listener(9999),
    "ipv6_status_identified": Break(
        "echo 'net.ipv6.conf.default.disable_ipv6 = 1' > /etc/sysctl.d/99-zz-broken.conf",
        "99-zz-broken.conf",
        "rm /etc/sysctl.d/99-zz-broken.conf",
    ),
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
    "motd_permissions": Break("chmod 0775 /etc/motd", "/update-motd/motd"),  # what the link points at
    "sshd_access_limited": _sshd_dropin("PasswordAuthentication yes"),
    "sshd_root_login_disabled": _sshd_dropin("PermitRootLogin yes", "sshd_access_limited"),
    "sshd_crypto_policy_not_overridden": Break("echo CRYPTO_POLICY= >> /etc/sysconfig/sshd", "/etc/sysconfig/sshd"),
    "su_access_restricted": Break("sed -i '/^auth.*pam_wheel/d' /etc/pam.d/su", "/etc/pam.d/su"),
    "journald_forwards_to_rsyslog": Break(
        "mkdir -p /etc/systemd/journald.conf.d; cd /etc/systemd/journald.conf.d;"
        " printf '[Journal]\\nForwardToSyslog=no\\n' > zzz.conf; systemctl restart systemd-journald",
        "zzz.conf",
        "rm /etc/systemd/journald.conf.d/zzz.conf; systemctl restart systemd-journald",
    ),
    "rsyslog_file_permissions": Break(
        "sed -i 's/FileCreateMode 0640/FileCreateMode 0644/' /etc/rsyslog.conf; systemctl restart rsyslog", "0644"
    ),
    "rsyslog_sends_to_remote_host": Break("rm /etc/rsyslog.d/*cis*; systemctl restart rsyslog", "remote log host"),
    "journal_upload_configured": Break("sed -i '/^URL/d' /etc/systemd/journal-upload.conf", "URL"),
    "journal_upload_enabled": Break("systemctl disable -q systemd-journal-upload", "systemd-journal-upload"),
    "authselect_custom_profile_used": Break(
        "cp --remove-destination /etc/authselect/postlogin /etc/pam.d/postlogin",
        "/etc/pam.d/postlogin",
        "ln -sf /etc/authselect/postlogin /etc/pam.d/postlogin",  # until then authselect refuses to change anything
    ),
    "pam_faillock_enabled": Break("authselect disable-feature with-faillock", "pam_faillock preauth"),
    "password_strength_required": Break("sed -i 's/^minlen.*/minlen = 8/' /etc/security/pwquality.conf", "minlen"),
    "failed_logins_locked_out": Break("sed -i 's/^deny.*/deny = 50/' /etc/security/faillock.conf", "deny"),
    "password_reuse_limited": Break(
        "sed -i 's/remember=5/remember=1/' /etc/authselect/custom/cis/password-auth && authselect apply-changes",
        "/etc/pam.d/password-auth",
    ),
    "password_hash_strong": _login_defs_line("ENCRYPT_METHOD", 0),
    "sudo_uses_pty": _sudoers("Defaults !use_pty"),
    "sudo_log_file_configured": _sudoers("Defaults !logfile"),
    "sudo_reauthentication_required": _sudoers("Defaults !authenticate"),
    "sudo_timeout_limited": _sudoers("Defaults timestamp_timeout=-1"),
    "password_minimum_age_set": _login_defs_line("PASS_MIN_DAYS", 0),
    "password_expiration_warning_set": _login_defs_line("PASS_WARN_AGE", 1),
    "inactive_accounts_locked": Break("useradd -D -f -1", "INACTIVE"),
    "aide_check_scheduled": Break("systemctl disable -q --now aidecheck.timer", "aidecheck.timer"),
    "audit_tools_integrity_checked": Break("sed -i '/^.usr.sbin.aureport /d' /etc/aide.conf", "/usr/sbin/aureport"),
    "world_writable_paths_secured": Break(f"touch '{_PROGRAM}'; chmod 0666 '{_PROGRAM}'", _PROGRAM, f"rm '{_PROGRAM}'"),
    "unowned_files_absent": Break(f"touch '{_PROGRAM}'; chown 4242 '{_PROGRAM}'", _PROGRAM, f"rm '{_PROGRAM}'"),
    "set_id_programs_known": Break(
        f"cp /bin/true '{_PROGRAM}'; chmod 4755 '{_PROGRAM}'",
        _PROGRAM,
        f"rm '{_PROGRAM}'",
        also=("audit_privileged_commands",),
    ),
    "audit_log_file_mode": Break(
        f"touch {_AUDIT_LOG}; chmod 0664 {_AUDIT_LOG}",
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

_AUDITD = "/etc/audit/auditd.conf"


def _auditd(key: str, value: str, *also: str) -> Break:
    command = f"cp -p {_AUDITD} /run/broken.conf; sed -i -E 's/^{key} *=.*/{key} = {value}/' {_AUDITD}"
    return Break(command, value, f"cp -p /run/broken.conf {_AUDITD}", also)


_UNBOUND = _journald({"Journal": {"SystemMaxUse": None}})._replace(
    undo="rm /etc/systemd/journald.conf.d/zzz-SystemMaxUse.conf; systemctl restart systemd-journald",
    also=("var_separate_mount", "var_log_separate_mount", "journald_rotation_configured", *_OF_A_KEPT_JOURNAL),
)
_DROPPING = "{ type filter hook forward priority 0; policy drop; }"
#: Per exception for EKS, how to break what it rests on, without doing what CIS asks: nothing would be left to except.
#: Each is undone: several rest on the same thing.
INSTEAD = {
    **dict.fromkeys(["var_separate_mount", "var_log_separate_mount", *_OF_A_KEPT_JOURNAL], _UNBOUND),
    "var_tmp_separate_mount": Break(
        "systemctl mask -q systemd-tmpfiles-clean.timer",
        "systemd-tmpfiles-clean.timer",
        "systemctl unmask -q systemd-tmpfiles-clean.timer",
    ),
    "home_separate_mount": _sysctl({"fs.protected_hardlinks": 1})._replace(
        undo="rm /etc/sysctl.d/99-zz-broken.conf; echo 1 > /proc/sys/fs/protected_hardlinks",
        also=("var_tmp_separate_mount",),
    ),
    "var_log_audit_separate_mount": _auditd("max_log_file_action", "ignore", "audit_logs_kept"),
    "audit_logs_kept": _auditd("max_log_file_action", "ignore", "var_log_audit_separate_mount"),
    "audit_low_space_acted_on": _auditd("space_left_action", "ignore"),
    "selinux_enforcing": Break(
        "cp -p /etc/selinux/config /run/broken.selinux; sed -i 's/^SELINUX=.*/SELINUX=disabled/' /etc/selinux/config",
        "/etc/selinux/config",
        "cp -p /run/broken.selinux /etc/selinux/config",
        also=("selinux_not_disabled",),
    ),
    "ip_forwarding_disabled": Break(
        "printf 'net.ipv4.ip_forward=0\\nnet.ipv6.conf.all.forwarding=1\\n' > /etc/sysctl.d/99-zz-broken.conf",
        "99-zz-broken.conf",
        "rm /etc/sysctl.d/99-zz-broken.conf",
    ),
    "single_firewall_utility_in_use": Break(
        f"nft add table inet broken; nft 'add chain inet broken f {_DROPPING}'",
        "inet broken",
        "nft delete table inet broken",
    ),
    "root_password_set": Break(
        "usermod -p '' root", "root", "usermod -p '*LOCK*' root", also=("shadow_passwords_not_empty",)
    ),
}

_NO_MOUNT = "this node has one volume: not applicable there; test_partitioned_node.py breaks them"
_NO_FIREWALL = "no host firewall is in use on a node: test_server_firewall.py breaks it on a server"
_NO_FIREWALLD = "firewalld is not in use on a node: test_server_firewall.py breaks it where a site chose it"
_JOURNALD = "journald keeps the logs of a node: not applicable there; test_server_profile.py breaks it"
_NO_COLLECTOR = "it waits for a collector in cis_values: not applicable without one; test_server_profile.py breaks it"
_NO_CRON = "a stock node has neither cron nor at: not applicable there; test_server_profile.py breaks them"
#: Rules that do not apply to a stand-in node, with the reason; the kinds' scenarios cover their states.
ELSEWHERE = {
    **dict.fromkeys(_OF_RSYSLOG, _JOURNALD),
    **dict.fromkeys(["journal_upload_configured", "journal_upload_enabled"], _NO_COLLECTOR),
    **dict.fromkeys(["firewalld_default_zone_set", "firewalld_unneeded_services_dropped"], _NO_FIREWALLD),
    **dict.fromkeys(
        [
            *("nftables_table_exists", "nftables_base_chains_exist", "firewall_loopback_configured"),
            *("nftables_established_connections_allowed", "nftables_default_deny"),
        ],
        _NO_FIREWALL,
    ),
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
    "unconfined_services_absent": "a container's kernel gives its processes no labels: not applicable there",
}


#: Rules that rest on what the broken one asks for: a volume without partitions is accepted while what fills it is
#: bounded, and a set-id program counts as known while its package is there.
RESTING = {
    "coredump_storage_disabled": ("var_separate_mount",),
    "journald_rotation_configured": ("var_separate_mount", "var_log_separate_mount"),
    "audit_log_size_configured": ("var_log_audit_separate_mount",),
    "sudo_installed": ("set_id_programs_known",),
    "rsyslog_installed": ("journald_forward_to_rsyslog_off",),
}


def how(slug: str, require: Mapping[str, Any]) -> Break:
    """The way to break a rule. Raises StopIteration when neither its kind nor BY_RULE knows one."""
    found = BY_RULE.get(slug)
    if found is None:
        kind = next(kind for kind in require if kind in BY_KIND)
        found = BY_KIND[kind](require[kind])
    return found._replace(also=(*found.also, *RESTING.get(slug, ())))


def takes_a_package_away(require: Mapping[str, Any]) -> bool:
    """Without their package other rules do not apply any more: these are broken last."""
    return "absent" not in require.get("package", {"absent": []})
