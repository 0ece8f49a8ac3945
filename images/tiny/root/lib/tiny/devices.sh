# What to do about a device, at boot and when it is plugged in; sourced by init and by hotplug. All repeat safely.

# start_dhcp INTERFACE: keeps a lease on it, in the background; /etc/udhcpc/default.script applies what comes
start_dhcp() {
	udhcpc -i "$1" -f -S -R -t 20 -T 1 -A 1 -O mtu -O staticroutes -O search >/dev/null 2>&1 &
}

# stop_dhcp INTERFACE
stop_dhcp() {
	for process in /proc/[0-9]*; do
		words=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null)
		case $words in "udhcpc -i $1 "*) kill "${process#/proc/}" ;; esac
	done
	rm -f "/run/net/$1"
}

# load_virtio ID: loads the module for a virtio device type, those apart that the initramfs has loaded
load_virtio() {
	case $1 in
	*0003) module=virtio_console ;;
	*0004) module=virtio_rng ;;
	*0005) module=virtio_balloon ;;
	*) return ;;
	esac
	[ -d "/sys/module/$module" ] || insmod "/lib/modules/$module.ko"
}

# link_disks: makes /dev/disk/by-id/virtio-SERIAL (and -partN) say what /sys says now
link_disks() {
	links=/dev/disk/by-id
	[ -d $links ] || mkdir -p $links
	for link in $links/*; do
		[ -L "$link" ] && [ ! -e "$link" ] && rm "$link"
	done
	for block in /sys/block/vd*; do
		[ -e "$block/serial" ] || continue
		serial=
		read -r serial <"$block/serial"
		[ -n "$serial" ] || continue
		disk=${block##*/}
		ln -sfn "../../$disk" "$links/virtio-$serial"
		for part in "$block/$disk"*; do
			[ -e "$part/partition" ] && ln -sfn "../../${part##*/}" "$links/virtio-$serial-part${part##*"$disk"}"
		done
	done
}
