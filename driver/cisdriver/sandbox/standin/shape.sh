#!/bin/bash
# usage: shape.sh SOURCE, inside a container made from base.sh's tree
# Turns Debian into the image of a stock EKS AL2023 node, before its first boot: SOURCE/rootfs over /, accounts, modes,
# units, and no trace of Debian that an audit could take for AL2023.
set -eu
source=$1
umask 022
export SYSTEMD_OFFLINE=1 LC_ALL=C.UTF-8
lib=/usr/libexec/standin

remove_debian() {
    # The shared libraries and programs stay; what an audit reads does not.
    rm -rf /etc/{apt,dpkg,cron.d,cron.daily,cron.hourly,cron.weekly,cron.monthly,update-motd.d,debian_version,bash.bashrc} \
        /etc/{chrony,deluser.conf,adduser.conf} \
        /etc/{init.d,rc?.d,rcS.d,pam.conf,kernel,modprobe.d,network,profile,profile.d,skel,sudoers,sudoers.d,ssh,ucf.conf} \
        /etc/{sysctl.d,sysctl.conf,audit,logrotate.d,grub.d,nologin,nftables.conf,iproute2} \
        /etc/{apparmor.d,ca-certificates,dhcp,insserv.conf.d,logcheck,modules,modules-load.d,networks,perl,ppp,python3,python3.11,runit,sv,ufw} \
        /etc/{hosts.allow,hosts.deny,e2scrub.conf,ethertypes,timezone,.resolv.conf.systemd-resolved.bak,default} \
        /etc/security/namespace.init /etc/dnf/plugins/{local,debug}.conf /usr/lib/sysctl.d/99-protect-links.conf \
        /usr/lib/python3/dist-packages/dnf-plugins/local.py /usr/share/pam-configs /usr/share/initramfs-tools \
        /etc/systemd/system/*.wants /etc/systemd/system/*.service /usr/share/bug
    rm -f /etc/pam.d/* /etc/os-release /usr/bin/{apt*,add-apt*,update-alternatives,deb*,ucf*,chfn,chsh,expiry,dotlockfile} \
        /usr/sbin/{pam-auth-update,pam_getenv,add-shell,remove-shell,update-passwd,invoke-rc.d,update-rc.d,service,adduser,deluser,addgroup,delgroup}
    rm -f /usr/lib/systemd/system/{apt-daily*,dpkg-db-backup*,e2scrub*,ssh.*,ssh@*,rescue-ssh*,chrony.service,chrony-*,x11-common*,hwclock*} \
        /usr/lib/systemd/system/{cryptdisks*,rc.service,rcS.service,sudo.service,nfs-common.service,procps.service,portmap.service,quotaon*} \
        /usr/lib/systemd/system/{nfs-kernel-server.service,selinux-autorelabel-mark.service} /usr/lib/systemd/system/*/selinux-autorelabel*
    rm -f /usr/lib/systemd/system-preset/*
    rm -f /usr/lib/sysusers.d/{basic,dbus,openssh*}.conf /usr/lib/tmpfiles.d/{debian,tmp,passwd,rpcbind}.conf
    # These reach into the machine's kernel: binfmt_misc is not the container's own, rpc_pipefs is not there at all.
    rm -f /usr/lib/systemd/system/*/{proc-sys-fs-binfmt_misc.automount,systemd-binfmt.service} /usr/lib/systemd/system-generators/{rpc-pipefs,nfs-server}-generator
    rm -rf /usr/lib/modprobe.d/fbdev-blacklist.conf /etc/udev/udev.conf /usr/lib/udev/hwdb.{d,bin} /usr/lib/systemd/system/cni-dhcp.* /usr/share/standin/vm
    rm -rf /usr/games /var/backups /var/local /var/mail /var/spool/mail /var/log/{apt,dpkg.log,bootstrap.log,alternatives.log,audit,faillog,README,runit} /boot/grub
}

lay_tree() {
    cp -r --no-preserve=mode,ownership "$source/rootfs/." /
    find $lib -maxdepth 1 -type f -exec chmod 755 {} +
    chmod 755 /usr/libexec/openssh/sshd-keygen /usr/lib/systemd/system-shutdown/standin /etc/eks/bootstrap.sh /etc/eks/log-collector-script/eks-log-collector.sh \
        /etc/eks/image-credential-provider/ecr-credential-provider /opt/aws/bin/eic_run_authorized_keys /etc/update-motd.d/10-nvidia-eula
    chmod 755 /usr/bin/{kubelet,nodeadm,nodeadm-internal,imds,vercmp,set-kernel-arg,setup-local-disks,cache-pause-container} \
        /usr/bin/{ebs-initialize,set-nvidia-clocks,nerdctl,aws,cloud-init,soci-snapshotter-grpc,grubby} /usr/sbin/service /usr/libexec/initscripts/legacy-actions/auditd/*
    chmod 644 $lib/*.toml $lib/kernel-defaults
    chmod 600 /etc/ssh/sshd_config /etc/ssh/sshd_config.d/* /etc/sysconfig/{sshd,nftables.conf} /etc/audit/rules.d/audit.rules /etc/default/grub
    chmod 440 /etc/sudoers /etc/sudoers.d/*
    chmod 750 /etc/sudoers.d /etc/audit /etc/audit/rules.d
    chmod 640 /etc/audit/auditd.conf /etc/libaudit.conf
    install -d -m 700 /etc/nftables
    chmod 700 /boot/grub2 /boot/loader/entries /boot/efi
    chmod 600 /boot/grub2/grub.cfg
}

lay_links() {
    local name
    ln -sfn ../usr/lib/os-release /etc/os-release
    for name in system-release amazon-linux-release; do
        ln -sfn ../usr/lib/system-release /etc/$name
        ln -sfn ../usr/lib/system-release-cpe /etc/$name-cpe
    done
    ln -sfn dnf-3 /usr/bin/dnf
    ln -sfn dnf-3 /usr/bin/yum
    ln -sfn dnf/dnf.conf /etc/yum.conf
    ln -sfn ../sysctl.conf /etc/sysctl.d/99-sysctl.conf
    ln -sfn ../var/lib/update-motd/motd /etc/motd
    ln -sfn ../proc/self/mounts /etc/mtab
    mkdir -p /etc/crypto-policies/back-ends /etc/crypto-policies/{local.d,policies}
    for name in /usr/share/crypto-policies/DEFAULT/*.txt; do
        name=$(basename "$name" .txt)
        ln -sfn /usr/share/crypto-policies/DEFAULT/$name.txt /etc/crypto-policies/back-ends/$name.config
    done
    mkdir -p /usr/libexec/openssh /usr/libexec/utempter /usr/share/empty.sshd
    ln -sfn /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server
    mv /usr/lib/openssh/ssh-keysign /usr/libexec/openssh/ssh-keysign
    ln -sfn /usr/libexec/openssh/ssh-keysign /usr/lib/openssh/ssh-keysign
    mv /usr/lib/x86_64-linux-gnu/utempter/utempter /usr/libexec/utempter/utempter
    ln -sfn /usr/libexec/utempter/utempter /usr/lib/x86_64-linux-gnu/utempter/utempter
    for name in mkconfig editenv mkpasswd-pbkdf2 script-check; do
        [ ! -e /usr/bin/grub-$name ] || mv /usr/bin/grub-$name /usr/bin/grub2-$name
        [ ! -e /usr/sbin/grub-$name ] || mv /usr/sbin/grub-$name /usr/sbin/grub2-$name
    done
    cp /usr/bin/true /usr/sbin/grub2-set-bootflag
    ln -sfn ../boot/grub2/grub.cfg /etc/grub2.cfg
    : > /boot/vmlinuz-6.12.73-95.123.amzn2023.x86_64
    : > /boot/initramfs-6.12.73-95.123.amzn2023.x86_64.img
    grub2-editenv /boot/grub2/grubenv create
}

# The programs of the upstream plugins; the stand-in joins a cluster whose CNI plugin brings them.
keep_cni() {
    mkdir -p $lib/cni
    mv /usr/lib/cni/{bridge,host-local,loopback,portmap} $lib/cni/
    rm -rf /usr/lib/cni
}

# The real program stays; the shim in front of it is named in docs/stand-in.md.
put_shims() {
    local name
    mkdir -p $lib/real
    for name in sbin/chronyd bin/containerd bin/partx sbin/auditd sbin/auditctl bin/kmod lib/systemd/systemd-sysctl; do
        mv /usr/$name $lib/real/
        mv $lib/"$(basename $name)" /usr/$name
    done
    # Debian names these accounts otherwise, in the program itself.
    sed -i 's/_chrony\x00/chrony\x00\x00/g' $lib/real/chronyd
    sed -i 's/_rpc\x00/rpc\x00\x00/g' /usr/sbin/rpcbind
    sed -i 's/"messagebus"/"dbus"/; s/messagebus/dbus/' /usr/share/dbus-1/system.conf
    grep -rl messagebus /usr/lib/systemd/system | xargs -r sed -i s/messagebus/dbus/
}

accounts() {
    local file
    # As anaconda and the packages' scriptlets leave it: "*" for the accounts of setup, "!!" for those made later.
    awk -F: '$3 < 200 && $1 !~ /^(sshd|rpc|rpcuser|dbus|systemd-.*)$/ || $1 == "nobody" { print $1 ":*:20658:0:99999:7:::"; next }
        { print $1 ":!!:20658::::::" }' /etc/passwd > /etc/shadow
    sed -i 's/^root:.*/root:*LOCK*:14600::::::/; s/^ec2-user:.*/ec2-user:!!:20658:0:99999:7:::/' /etc/shadow
    awk -F: '{ print $1 ":" ($1 == "root" || $1 == "adm" || $1 == "wheel" || $1 == "bin" ? "" : "!") "::" $4 }' /etc/group > /etc/gshadow
    for file in passwd group shadow gshadow; do
        chown root:root /etc/$file
        rm -f /etc/$file-
        cp /etc/$file /etc/$file-
    done
    chmod 644 /etc/passwd{,-} /etc/group{,-}
    chmod 0000 /etc/shadow{,-} /etc/gshadow{,-}
    install -d -m 700 -o ec2-user -g ec2-user /home/ec2-user
    for file in .bashrc .bash_profile .bash_logout; do install -m 644 -o ec2-user -g ec2-user /etc/skel/$file /home/ec2-user/; done
    install -m 644 /etc/skel/.bashrc /etc/skel/.bash_profile /etc/skel/.bash_logout /root/
    rm -f /root/.profile /home/ec2-user/.profile
    chmod 550 /root
}

modes() {
    local file
    find / -xdev -type f -perm /6000 -exec chmod ug-s {} +
    # The group first: changing it takes the set-uid bit away.
    chgrp root /usr/bin/{chage,ssh-agent} /usr/sbin/unix_chkpwd
    chgrp tty /usr/bin/write
    chgrp ssh_keys /usr/libexec/openssh/ssh-keysign
    chgrp utempter /usr/libexec/utempter/utempter
    chmod 4755 /usr/bin/{su,chage,gpasswd,newgrp,mount,umount,passwd} \
        /usr/sbin/{mount.nfs,pam_timestamp_check,unix_chkpwd,grub2-set-bootflag}
    chmod 4111 /usr/bin/sudo
    chmod 2755 /usr/bin/write /usr/libexec/utempter/utempter /usr/libexec/openssh/ssh-keysign
    find /usr/local -type d -exec chown root:root {} + -exec chmod 755 {} +
    mkdir -p /var/spool/mail /var/adm /var/ftp /var/spool/lpd /var/log/{audit,chrony,amazon/ssm,journal} /etc/{chrony.d,exports.d}
    chgrp mail /var/spool/mail && chmod 775 /var/spool/mail
    ln -sfn spool/mail /var/mail
    chmod 700 /var/log/audit
    install -m 600 /dev/null /var/log/audit/audit.log
    chgrp systemd-journal /var/log/journal && chmod 2755 /var/log/journal
    install -d -m 750 -o chrony -g chrony /var/lib/chrony /var/log/chrony
    for file in tracking measurements statistics; do install -m 644 -o chrony -g chrony /dev/null /var/log/chrony/$file.log; done
    for file in amazon-ssm-agent errors; do install -m 644 /dev/null /var/log/amazon/ssm/$file.log; done
    for file in dnf dnf.librepo dnf.rpm hawkey; do install -m 644 /dev/null /var/log/$file.log; done
    chgrp chrony /etc/chrony.keys && chmod 640 /etc/chrony.keys
    install -d -m 700 -o rpc -g rpc /var/lib/rpcbind
    chown -R rpcuser:rpcuser /var/lib/nfs/{sm,sm.bak,state}
    install -m 664 -g utmp /dev/null /var/log/wtmp
    install -m 660 -g utmp /dev/null /var/log/btmp
    install -m 664 -g utmp /dev/null /var/log/lastlog
    install -m 600 /dev/null /etc/security/opasswd
    install -d -m 755 /etc/security/{limits.d,pwquality.conf.d} /etc/selinux/targeted/{policy,contexts}
    install -d -m 755 /etc/{modprobe.d,iproute2} /etc/eks/nodeadm.d /etc/kubernetes/manifests /var/lib/{kubernetes,kubelet,containerd} \
        /opt/cni/bin /var/lib/cloud
    chown root:root /var/log/audit
}

settings() {
    sed -i 's/^#\?ForwardToSyslog=.*/#ForwardToSyslog=no/' /etc/systemd/journald.conf
    sed -i 's|/lib/systemd/systemd-coredump|/usr/lib/systemd/systemd-coredump|; s|/usr/usr/|/usr/|' /usr/lib/sysctl.d/50-coredump.conf
    sed -i 's/^#\?ProcessSizeMax=.*/#ProcessSizeMax=2G/' /etc/systemd/coredump.conf
    printf 'q /tmp 1777 root root 10d\nq /var/tmp 1777 root root 30d\n' > /usr/lib/tmpfiles.d/tmp.conf
    printf 'd /run/sshd 0755 root root -\nd /run/rpcbind 0700 rpc rpc -\n' > /usr/lib/tmpfiles.d/standin.conf
    : > /etc/machine-id
    # /etc/hostname and /etc/resolv.conf are mounted here; the first boot removes them.
    rm -f /etc/ssh/ssh_host_* /var/lib/systemd/random-seed /var/lib/dbus/machine-id
}

units() {
    mkdir -p /usr/lib/systemd/system/local-fs.target.wants
    ln -sfn ../tmp.mount /usr/lib/systemd/system/local-fs.target.wants/tmp.mount
    rm -f /usr/share/systemd/tmp.mount
    systemctl -q enable sshd.service chronyd.service auditd.service dbus-broker.service getty@tty1.service \
        systemd-networkd.service systemd-resolved.service rpcbind.socket gssproxy.service nfs-client.target remote-fs.target \
        amazon-ssm-agent.service irqbalance.service update-motd.timer logrotate.timer soci-snapshotter.socket \
        cloud-init-local.service cloud-init.service cloud-config.service cloud-final.service \
        nodeadm-boot-hook.service nodeadm-config.service nodeadm-run.service cni-cache-reset.service \
        ebs-initialize-bin@containerd.service ebs-initialize-bin@kubelet.service
    systemctl -q disable rpcbind.service nfs-server.service nftables.service containerd.service systemd-networkd-wait-online.service \
        nfs-blkmap.service systemd-pstore.service fstrim.timer 2>/dev/null || true
    systemctl set-default -q multi-user.target
}

remove_debian
lay_tree
accounts
put_shims
keep_cni
lay_links
modes
settings
units
python3 "$source/packages.py" "$source"
rm -rf /usr/bin/{dpkg*,ucf*,perl5*,debconf*} /usr/sbin/dpkg* /var/lib/{dpkg,apt,ucf,debconf,systemd/deb-systemd-helper-enabled,pam,python,misc,xkb,polkit-1,initramfs-tools,logrotate} \
    /var/cache/{debconf,ldconfig,dnf} /usr/share/{dpkg,debconf} /etc/debconf.conf /etc/alternatives/README /tmp/* /var/tmp/* /root/.gnupg
rm -rf /var/cache/dnf /var/log/dnf* && for file in dnf dnf.librepo dnf.rpm hawkey; do install -m 644 /dev/null /var/log/$file.log; done
