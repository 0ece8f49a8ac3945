# The boot sector of tiny: reads the kernel, the initramfs and a command line from fixed places of the disk and enters
# the kernel by Linux's 16-bit boot protocol (Documentation/x86/boot.rst, "THE REAL-MODE KERNEL HEADER" on).
#
# A boot loader with file systems and menus costs several tenths of a second on an emulated processor; this one costs
# what reading the sectors costs. The recipe passes where things are: KERNEL_LBA, SETUP_SECTORS (of the kernel's
# real-mode part), KERNEL_SECTORS (of the rest), INITRD_LBA, INITRD_BYTES, COMMAND_LINE_LBA, EMULATED_COMMAND_LINE_LBA.

	.code16
	.text
	.globl start

	.set SETUP_SEGMENT, 0x9000		# the kernel's real-mode part
	.set HEAP_END, 0xde00			# its heap and stack end here, below the command line
	.set COMMAND_LINE, 0x9e000		# linear; two sectors
	.set BUFFER_SEGMENT, 0x1000		# where the BIOS reads to before data moves above 1 MiB
	.set KERNEL, 0x100000
	.set KERNEL_TEXT, 0x1000000		# where the kernel unpacks itself to
	.set INITRD, 0x6000000			# 96 MiB: above the unpacked kernel, inside a machine of 128 MiB
	.set CHUNK_SECTORS, 127			# the most that every BIOS reads at once

start:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %ss
	movw $start, %sp
	sti
	cld
	movb %dl, drive

	# Two command lines: an emulated processor wants other timers than a real one.
	call flat
	movl $0x40000000, %eax
	cpuid
	movl $COMMAND_LINE_LBA, %edi
	cmpl $0x54474354, %ebx			# "TCGTCGTCGTCG", QEMU without KVM
	jne 1f
	movl $EMULATED_COMMAND_LINE_LBA, %edi

	# After a reset QEMU still holds translations of the kernel that ran before, and each store into their pages is
	# checked against them: unpacking the new kernel over the old took 4 s longer. A device writing to memory drops
	# them by the page, and the firmware configuration device writes zeros past the end of an item.
	# (QEMU: docs/specs/fw_cfg.rst, "Guest-side DMA Interface")
	movl $KERNEL_TEXT, %esi
	addr32 cmpl $0, (%esi)			# memory is all zeros at power-on
	je 1f
	movl $erase, %eax
	bswapl %eax
	movw $0x518, %dx
	outl %eax, %dx

1:	sti
	movw $COMMAND_LINE >> 4, packet_segment
	movl %edi, %eax
	movw $2, %cx
	call read

	movw $SETUP_SEGMENT, packet_segment
	movl $KERNEL_LBA, %eax
	movw $SETUP_SECTORS, %cx
	call read

	movl $KERNEL_LBA + SETUP_SECTORS, %eax
	movl $KERNEL, %edi
	movl $KERNEL_SECTORS, %ebp
	call read_high
	movl $INITRD_LBA, %eax
	movl $INITRD, %edi
	movl $(INITRD_BYTES + 511) / 512, %ebp
	call read_high

	# Fill in the header and jump behind it.
	movw $SETUP_SEGMENT, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %fs
	movw %ax, %gs
	movb $0xff, 0x210			# type_of_loader: none that has a number
	orb $0x80, 0x211			# loadflags: heap_end_ptr is valid
	movl $INITRD, 0x218
	movl $INITRD_BYTES, 0x21c
	movw $HEAP_END - 0x200, 0x224		# heap_end_ptr, counted from the end of the first sector
	movl $COMMAND_LINE, 0x228
	cli
	movw %ax, %ss
	movw $HEAP_END, %sp
	ljmp $SETUP_SEGMENT + 0x20, $0

# Reads CX sectors from sector EAX to packet_segment:0.
read:
	movl %eax, packet_lba
	movw %cx, packet_sectors
	movb drive, %dl
	movw $packet, %si
	movb $0x42, %ah
	int $0x13
	jc fail
	ret

# Reads EBP sectors from sector EAX to linear address EDI.
read_high:
	movw $BUFFER_SEGMENT, packet_segment
next_chunk:
	movl $CHUNK_SECTORS, %ecx
	cmpl %ecx, %ebp
	jae 1f
	movl %ebp, %ecx
1:	pushl %eax
	pushl %ecx
	call read
	call flat				# again: the BIOS may have been to protected mode
	popl %ecx
	popl %eax
	addl %ecx, %eax
	subl %ecx, %ebp
	movl $BUFFER_SEGMENT << 4, %esi
	shll $7, %ecx				# sectors to double words
	addr32 rep movsl
	sti
	testl %ebp, %ebp
	jnz next_chunk
	ret

# Lifts the 64 KiB limits of DS and ES by a visit to protected mode; both are 0 then. Leaves interrupts off: a handler
# of the BIOS may bring the limits back, and a store beyond them would be tried for ever. The caller turns them on.
flat:
	cli
	lgdt table_pointer
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	movw $8, %bx
	movw %bx, %ds
	movw %bx, %es
	andb $0xfe, %al
	movl %eax, %cr0
	xorw %bx, %bx
	movw %bx, %ds
	movw %bx, %es
	ret

fail:
	movw $message, %si
1:	lodsb
	testb %al, %al
	jz 2f
	movb $0x0e, %ah
	int $0x10
	jmp 1b
2:	hlt
	jmp 2b

message:
	.asciz "disk error"

	.balign 8
table:						# null, then flat data
	.quad 0
	.quad 0x00cf92000000ffff
table_pointer:
	.word . - table - 1
	.long table

	.balign 4
erase:						# read item 0 to memory from KERNEL to 4 MiB past INITRD; big endian
	.byte 0, 0, 0, 0x0a
	.byte 0x06, 0x30, 0, 0
	.byte 0, 0, 0, 0, 0, 0x10, 0, 0
packet:						# disk address packet of INT 13h, AH=42h
	.word 16
packet_sectors:
	.word 0
	.word 0
packet_segment:
	.word 0
packet_lba:
	.quad 0
drive:
	.byte 0
