package cpu

import (
	"fmt"
	"sync"
	"unsafe"
)

// Memory is a block of zeroed memory outside the Go heap, where kernels may
// keep pointers. It starts at a multiple of 64 bytes (of the huge page size,
// if it is at least that long) and ends before an inaccessible page.
type Memory struct {
	mapping []byte // what the operating system gave
	data    []byte
}

const hugePage = 2 << 20

// Alloc maps a block of at least one byte and touches all of it, from several
// threads at once, so that no page fault happens while kernels run.
func Alloc(bytes int64, threads int) (*Memory, error) {
	if bytes < 0 || int64(int(bytes)) != bytes {
		return nil, fmt.Errorf("cannot allocate %d bytes", bytes)
	}
	size := roundUp(max(int(bytes), 1), pageSize)
	slack := 0
	if size >= hugePage {
		slack = hugePage // room to move the start to a huge page boundary
	}
	mapping, err := mapPages(size + slack + pageSize)
	if err != nil {
		return nil, fmt.Errorf("cannot allocate %s of memory: %w", formatBytes(bytes), err)
	}
	start := 0
	if slack > 0 {
		start = roundUp(int(address(mapping)), hugePage) - int(address(mapping))
	}
	m := &Memory{mapping: mapping, data: mapping[start : start+max(int(bytes), 1) : start+size]}
	if err := guardPages(mapping[start+size:]); err != nil {
		m.Free()
		return nil, fmt.Errorf("cannot protect the end of a memory block: %w", err)
	}
	adviseHuge(mapping[start : start+size])
	touch(mapping[start:start+size], threads)
	return m, nil
}

// Bytes is the block. It must not be used after Free.
func (m *Memory) Bytes() []byte { return m.data }

// Float32s is the block as float32 elements.
func (m *Memory) Float32s() []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(&m.data[0])), len(m.data)/4)
}

// Address of the first byte.
func (m *Memory) Address() uintptr { return address(m.data) }

// Free gives the block back. Freeing nil or twice does nothing.
func (m *Memory) Free() {
	if m == nil || m.mapping == nil {
		return
	}
	unmapPages(m.mapping)
	m.mapping, m.data = nil, nil
}

// touch writes one byte to each page, so that the system backs it now.
func touch(b []byte, threads int) {
	const least = 32 << 20 // below this a goroutine is not worth its start
	threads = max(1, min(threads, len(b)/least))
	chunk := roundUp((len(b)+threads-1)/threads, hugePage)
	var wg sync.WaitGroup
	for lo := 0; lo < len(b); lo += chunk {
		part := b[lo:min(lo+chunk, len(b))]
		wg.Go(func() {
			for i := 0; i < len(part); i += pageSize {
				part[i] = 0
			}
		})
	}
	wg.Wait()
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

func roundUp(n, to int) int { return (n + to - 1) / to * to }

func formatBytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
