#!/bin/bash
# usage: base.sh ROOT
# Debian bookworm with the programs of an AL2023 node, not yet shaped. Runs as root on the machine; needs debootstrap.
set -eu
root=$1
# The mirror this machine's own apt uses, if it is a bookworm; else debootstrap's.
mirror=${CISDRIVER_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' \
    2>/dev/null | head -n 1)}
kernel=6.12.73-95.123.amzn2023.x86_64

# What is installed: the programs that a node runs or that a rule looks at.
packages=(
    systemd systemd-sysv systemd-resolved systemd-coredump systemd-oomd dbus-broker libpam-systemd
    openssh-server openssh-client openssh-sftp-server sudo libpam-modules libpam-modules-bin libpam-pwquality cracklib-runtime
    nftables iptables ipset conntrack ipvsadm chrony auditd logrotate rpcbind nfs-common nfs-kernel-server gssproxy
    containerd runc python3 python3-selinux python3-rpm python3-dnf python3-yaml rpm dnf dnf-plugins-core createrepo-c gnupg
    kmod procps iproute2 iputils-ping net-tools hostname psmisc less jq file ethtool socat unzip wget curl xz-utils zstd
    libuser selinux-utils policycoreutils grub-common openssl ca-certificates e2fsprogs xfsprogs fdisk
    libutempter0 bsdextrautils diffutils findutils util-linux udev containernetworking-plugins
    libmhash2 libestr0 libfastjson4 liblognorm5 libmicrohttpd12
)
# What `dnf install` shall bring: kept as archives until packages.py makes RPMs of them.
archives=(aide rsyslog cron at systemd-journal-remote)
# What the disk of a virtual machine is made with (vm.sh), beside the kernel: no image but this one holds them.
for_vm=(busybox-static dosfstools selinux-policy-default)
# The real modules of a kernel like the node's; drivers and the file systems that AL2023 does not build are left out.
modules=(fs/squashfs fs/udf fs/overlayfs fs/fuse fs/nls fs/fat fs/isofs fs/nfs fs/nfs_common fs/lockd net/sctp net/rds net/bridge
    net/802 net/8021q net/llc net/netfilter net/ipv4 net/ipv6 net/sunrpc lib crypto)

in_root() { chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }

debootstrap --variant=minbase --include=ca-certificates bookworm "$root" ${mirror:+"$mirror"}
mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
cat > "$root/etc/dpkg/dpkg.cfg.d/standin" <<'END'
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
END
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
mkdir -p "$root"/usr/share/standin/{debs,kernel,vm}
image=$(in_root apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
in_root sh -c "cd /usr/share/standin/debs && apt-get -q -o APT::Sandbox::User=root download ${archives[*]}"
in_root sh -c "cd /usr/share/standin/vm && apt-get -q -o APT::Sandbox::User=root download ${for_vm[*]} $image"
# From here on the name server is systemd-resolved, which does not run: nothing more can be fetched.
in_root apt-get -q -o APT::Sandbox::User=root install -y --no-install-recommends "${packages[@]}"

dpkg-deb -x "$root"/usr/share/standin/vm/linux-image-*.deb "$root/usr/share/standin/kernel"
source=$(echo "$root"/usr/share/standin/kernel/lib/modules/*)
target=$root/usr/lib/modules/$kernel
mkdir -p "$target/kernel"
for folder in "${modules[@]}"; do
    [ -d "$source/kernel/$folder" ] || continue
    mkdir -p "$(dirname "$target/kernel/$folder")"
    cp -r "$source/kernel/$folder" "$(dirname "$target/kernel/$folder")/"
done
cp "$source"/modules.{builtin,builtin.modinfo,order} "$target/"
find "$target" -name '*dccp*' -delete
in_root depmod "$kernel"

rm -rf "$root"/etc/{hostname,resolv.conf} "$root"/usr/share/standin/kernel "$root"/usr/sbin/policy-rc.d \
    "$root"/var/cache/apt "$root"/var/lib/apt/lists "$root"/usr/share/{doc,man,info,locale} "$root"/var/log/*.log
