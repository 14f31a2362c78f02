package cpu

import "syscall"

// adviseHuge asks for huge pages: weights and activations are walked in long
// strides, where 4 KiB pages cost a TLB miss each. It is a hint; where huge
// pages are off the kernel refuses and nothing is lost.
func adviseHuge(b []byte) {
	if len(b) >= hugePage {
		_ = syscall.Madvise(b, syscall.MADV_HUGEPAGE)
	}
}
