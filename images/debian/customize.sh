#!/bin/sh
# Called by mmdebstrap as `customize.sh ROOT` once the packages are installed. Does what Debian's installer and its
# cloud images do: boot loader, file system table, host name; and takes out what must differ between machines.
set -eu

root=$1
grub=/boot/grub/i386-pc

# The parts of grub-install that need no device: the module folder and core.img beside it. The recipe puts boot.img
# and core.img where the firmware finds them.
mkdir -p "$root$grub"
cp "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst "$root"/usr/lib/grub/i386-pc/*.img "$root$grub/"
chroot "$root" grub-mkimage --format i386-pc --prefix '(hd0,gpt1)/boot/grub' --output $grub/core.img \
	biosdisk part_gpt ext2

cat >"$root/etc/default/grub" <<'GRUB'
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
GRUB_TERMINAL="console serial"
GRUB
kernel=$(ls "$root/boot" | sed -n 's/^vmlinuz-//p')
# What update-grub would say; it runs in the machine when a kernel is installed there, since it needs real devices.
cat >"$root/boot/grub/grub.cfg" <<GRUB
set timeout=0
menuentry 'Debian GNU/Linux' {
	linux /boot/vmlinuz-$kernel root=PARTUUID=$ROOT_PARTUUID ro console=tty0 console=ttyS0,115200 quiet
	initrd /boot/initrd.img-$kernel
}
GRUB
echo "grub-pc grub-pc/install_devices multiselect /dev/vda" | chroot "$root" debconf-set-selections

echo "PARTUUID=$ROOT_PARTUUID / ext4 rw,discard,errors=remount-ro 0 1" >"$root/etc/fstab"
echo LANG=C.UTF-8 >"$root/etc/default/locale"
echo localhost >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
chroot "$root" systemctl -q enable systemd-networkd systemd-resolved

# Once more with a fixed time: the one made during installation holds the time of the build.
SOURCE_DATE_EPOCH=$IMAGE_EPOCH chroot "$root" update-initramfs -u -k "$kernel"

# Each machine makes its own at its first boot.
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/systemd/random-seed" "$root/var/lib/dbus/machine-id"
printf 'uninitialized\n' >"$root/etc/machine-id"

# The builder's traces: its package path filters, caches and logs.
rm -rf "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$root/etc/apt/apt.conf.d/99mmdebstrap" \
	"$root/var/cache/ldconfig/aux-cache" "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old
find "$root/var/log" -type f -delete
