#!/bin/bash
# usage: vm.sh IMAGE OUT, inside a container made from base.sh's tree
# The disk of a virtual machine from the tree IMAGE of a stand-in node, written without mounting it, and in OUT what boots it:
# disk.img (GPT as on EC2: p1 the root file system, p128 EFI), vmlinuz, busybox and initrd-modules/, in the order of loading.
set -eu
image=$1 out=$2
debs=/usr/share/standin/vm
# A tree of its own on one device: setfiles goes no further
work=$out/work node=$out/work/node
mkdir -p "$work"
cp -a "$image" "$node"
# AL2023's disk, in sectors of 512 bytes
size=$((8 * 1024 * 1024 * 2)) efi=2048 root=24576

unpack() { # PACKAGE
    dpkg-deb -x $debs/"$1"[_-]*.deb "$work/$1"
}

kernel() {
    local modules release name
    unpack linux-image
    modules=$(echo "$work"/linux-image/lib/modules/*)
    release=$(basename "$modules")
    cp "$work"/linux-image/boot/vmlinuz-* "$out/vmlinuz"
    # what the kernel of AL2023 does not build
    rm -rf "$modules"/kernel/fs/{adfs,affs,befs,bfs,cramfs,efs,freevxfs,hfs,hfsplus,hpfs,jffs2,jfs,minix,omfs,qnx4,qnx6,reiserfs,sysv,ufs} "$modules"/kernel/net/dccp
    cp -r "$modules" "$node/usr/lib/modules/"
    depmod -b "$node" "$release"
    mkdir -p "$out/initrd-modules"
    for name in virtio_pci virtio_console; do
        modprobe -d "$node" -S "$release" --show-depends $name | sed -n 's/^insmod //p'
    done | awk '!seen[$1]++' | while read -r name; do
        cp "$name" "$out/initrd-modules/$(ls "$out/initrd-modules" | wc -l | xargs printf %02d)-$(basename "$name")"
    done
}

tree() {
    local name
    unpack busybox-static
    cp "$work/busybox-static/bin/busybox" "$out/busybox"
    rm -rf "${node:?}"/{run,tmp,dev,proc,sys}/*
    ln -sfn ../run/systemd/resolve/stub-resolv.conf "$node/etc/resolv.conf"
    rm -f "$node/etc/hostname"
    # The kernel is the node's own: no shim where the real program does all a node's does
    for name in sbin/auditd sbin/auditctl bin/kmod bin/partx lib/systemd/systemd-sysctl; do
        mv "$node/usr/libexec/standin/real/$(basename $name)" "$node/usr/$name"
    done
    # mke2fs can fill a file system, mkfs.xfs cannot
    sed -i '/^UUID=[^ ]* *\/ /s/xfs /ext4/' "$node/etc/fstab"
}

# Debian's reference policy in the place of Amazon's "targeted"; every file gets its label here, for the node would need minutes.
labels() {
    local name modules=()
    unpack selinux-policy-default
    cp -r "$work/selinux-policy-default/etc/selinux/default" /etc/selinux/targeted
    mkdir -p /var/lib/selinux/targeted
    while read -r name; do
        modules+=(-i "$work/selinux-policy-default/usr/share/selinux/default/$name.pp.bz2")
    done < "$work/selinux-policy-default/usr/share/selinux/default/.modules"
    semodule -n -s targeted -X 100 "${modules[@]}"
    cp -r /etc/selinux/targeted "$node/etc/selinux/"
    setfiles -F -r "$node" "$node/etc/selinux/targeted/contexts/files/file_contexts" "$node"
}

disk() {
    local disk=$out/disk.img uuid
    uuid=$(sed -n 's|^UUID=\([^ ]*\) */ .*|\1|p' "$node/etc/fstab")
    rm -f "$disk"
    truncate -s $((size * 512)) "$disk"
    printf 'label: gpt\n128: start=%d, size=%d, type=uefi\n1: start=%d, size=%d, type=linux, name="Linux"\n' \
        $efi $((root - efi)) $root $((size - root - 2048)) | sfdisk -q "$disk"
    mke2fs -q -t ext4 -L / -U "$uuid" -E "offset=$((root * 512)),lazy_itable_init=0,assume_storage_prezeroed=1" \
        -d "$node" "$disk" $(((size - root - 2048) / 2))k
    unpack dosfstools
    "$work/dosfstools/sbin/mkfs.fat" -i AB12CD34 -n EFI -C "$work/efi" $(((root - efi) / 2)) > /dev/null
    dd if="$work/efi" of="$disk" bs=512 seek=$efi conv=notrunc,sparse status=none
}

kernel
tree
labels
disk
rm -rf "$work"
