/* Kernel command lines that the CLI gives its guests, and the words that smol-init reads.
 *
 * The monitor appends what describes the machine (virtio_mmio.device=..., the memory map goes
 * another way).
 *
 *   console=ttyS0    kernel messages and panics to the 16550; the monitor keeps the last of them
 *   quiet            a message on a serial line is one exit a byte; errors and panics still print
 *   reboot=t         the machine has no other reset that is cheaper: a triple fault ends the VM
 *   panic=-1         a panic resets at once, after it has printed its reason
 *   no_timer_check   no test of the PIT's wiring to the I/O APIC
 *   rdinit=/init     the initramfs's first program (the kernel's default, said for readers)
 *
 * smol-init's own words:
 *   smol.hello       write "smol-init: ready" to the console before anything else
 *   smol.exec=PATH   no host protocol: run PATH (arguments: the words after " -- ") on the console
 *   smol.end=off|reset  how the machine is ended; default: off where there is ACPI, else reset
 */
#ifndef SMOL_GUEST_CMDLINE_H
#define SMOL_GUEST_CMDLINE_H

#define SMOL_CMDLINE_COMMON "console=ttyS0 quiet reboot=t panic=-1"
#define SMOL_CMDLINE_MICRO SMOL_CMDLINE_COMMON " no_timer_check"
#define SMOL_CMDLINE_FULL SMOL_CMDLINE_COMMON " no_timer_check"
/* For kernels that we did not build: nothing is assumed of their drivers. */
#define SMOL_CMDLINE_STOCK SMOL_CMDLINE_COMMON

#endif
