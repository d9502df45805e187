# shellcheck shell=sh
# Takes from a machine what belongs to it alone, before an image is made of it. Runs as root over an open session,
# which goes on; nobody can log in afterwards until cloud-init has run in an instance of the image.

# Identity: made anew at the first boot (sshd-keygen, systemd, cloud-init).
rm -f /etc/ssh/ssh_host_*
rm -f /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys
: > /etc/machine-id
if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
    rm -f /var/lib/dbus/machine-id
fi
rm -f /var/lib/systemd/random-seed
# Not the state of amazon-ssm-agent: the session may run through it.
rm -rf /var/lib/dhclient/* /var/lib/NetworkManager/*.lease

# cloud-init writes this one at the first boot, for its default user; it is the build's, as are Packer's.
rm -f /etc/sudoers.d/90-cloud-init-users /etc/sudoers.d/*packer* /etc/sudoers.d/*cisdriver-bake*

# cloud-init itself: without its state it runs as on a new instance.
for state in data handlers instance instances sem; do
    rm -rf "/var/lib/cloud/$state"
done

# What was said and done. Emptied rather than deleted, so that owners and modes stay as hardened.
rm -rf /var/log/journal/*
find /var/log /var/log/audit -xdev -type f \( -name '*.gz' -o -name '*.old' -o -name '*.[0-9]' -o -name '*-20[0-9][0-9][0-9][0-9][0-9][0-9]' \) -delete
find /var/log /var/log/audit -xdev -type f -size +0 -exec truncate -s 0 {} +
for home in /root /home/*; do
    rm -f "$home/.bash_history" "$home/.python_history" "$home/.lesshst" "$home/.viminfo" "$home/.wget-hsts"
    rm -rf "$home/.ansible"
done

# Scratch space, except what the module that runs this has open there.
find /tmp /var/tmp -xdev -mindepth 1 -maxdepth 1 ! -name 'ansible_*' ! -name 'ansible-*' -exec rm -rf {} +
rm -rf /var/cache/dnf/* /var/cache/yum/*

left=$(find /etc/ssh /root/.ssh /home/*/.ssh -maxdepth 1 \( -name 'ssh_host_*' -o -name authorized_keys \) 2>/dev/null || true)
if [ -n "$left" ] || [ -s /etc/machine-id ]; then
    echo "still there after the cleaning: $left $(cat /etc/machine-id)" >&2
    exit 1
fi
sync
