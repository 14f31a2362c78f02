// Package safetensors reads and writes the safetensors format: named tensors
// behind a JSON header. It is a strict reader of untrusted files and a
// deterministic writer; it is not a model loader, and knows nothing of
// parameters or devices.
//
// A file is an 8-byte little-endian header length, that many bytes of JSON
// (padded with spaces), and the tensors' bytes, little-endian and row-major,
// without gaps. https://huggingface.co/docs/safetensors
package safetensors

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// MaxHeader is the largest header accepted, in bytes; the reference
// implementation's limit.
const MaxHeader = 100_000_000

// Tensor is one named array.
type Tensor struct {
	Name  string
	DType DType
	Shape []int  // empty for a scalar
	Data  []byte // Len()*DType.Size() bytes, little-endian, row-major
}

// Len returns the number of elements: the product of the shape.
func (t *Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// File is the content of one safetensors file.
type File struct {
	Metadata map[string]string
	Tensors  []Tensor // by rising name
}

// Tensor finds a tensor by name; nil if there is none.
func (f *File) Tensor(name string) *Tensor {
	i, ok := slices.BinarySearchFunc(f.Tensors, name, func(t Tensor, name string) int {
		return cmp.Compare(t.Name, name)
	})
	if !ok {
		return nil
	}
	return &f.Tensors[i]
}

// Error is a fault in a file's content.
type Error struct {
	File   string // path; empty when parsed from memory
	Tensor string // empty when the fault is not of one tensor
	Reason string
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		fmt.Fprintf(&b, "%s: ", e.File)
	}
	b.WriteString("safetensors: ")
	if e.Tensor != "" {
		fmt.Fprintf(&b, "tensor %q: ", e.Tensor)
	}
	b.WriteString(e.Reason)
	return b.String()
}

// Read reads and checks the file at path. Tensors share one buffer that
// belongs to the caller. Faults in the content are *Error; others come from
// the file system.
func Read(path string) (*File, error) {
	data, err := readAll(path)
	if err != nil {
		return nil, err
	}
	return parseOf(path, data)
}

// ReadSum is Read, and the SHA-256 of the bytes that were read.
func ReadSum(path string) (*File, [sha256.Size]byte, error) {
	data, err := readAll(path)
	if err != nil {
		return nil, [sha256.Size]byte{}, err
	}
	sum := sha256.Sum256(data)
	f, err := parseOf(path, data)
	return f, sum, err
}

func readAll(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("not a regular file")}
	}
	return os.ReadFile(path)
}

func parseOf(path string, data []byte) (*File, error) {
	f, err := Parse(data)
	if e, ok := err.(*Error); ok {
		e.File = path
	}
	return f, err
}

// Parse checks and splits the bytes of a file; tensors alias data. The error,
// if any, is an *Error.
func Parse(data []byte) (*File, error) {
	if len(data) < 8 {
		return nil, &Error{Reason: fmt.Sprintf("truncated: %d bytes, no room for the header length", len(data))}
	}
	size := uint64(0)
	for i := 7; i >= 0; i-- {
		size = size<<8 | uint64(data[i])
	}
	body := data[8:]
	switch {
	case bytes.HasPrefix(data, []byte("PK\x03\x04")):
		return nil, &Error{Reason: "a zip archive, as torch.save writes: save the state_dict with safetensors.torch.save_file instead"}
	case size > MaxHeader:
		return nil, &Error{Reason: fmt.Sprintf("header of %d bytes exceeds the limit of %d: not a safetensors file?", size, MaxHeader)}
	case size > uint64(len(body)):
		return nil, &Error{Reason: fmt.Sprintf("truncated: header of %d bytes, file has %d left", size, len(body))}
	}
	metadata, entries, err := parseHeader(body[:size])
	if err != nil {
		return nil, err
	}
	f := &File{Metadata: metadata}
	if err := f.place(entries, body[size:]); err != nil {
		return nil, err
	}
	return f, nil
}

// entry is one tensor as the header states it.
type entry struct {
	name       string
	dtype      DType
	shape      []int
	begin, end uint64
}

// bytes returns what dtype and shape call for, or an error past limit.
func (e *entry) bytes(limit int) (int, error) {
	if slices.Contains(e.shape, 0) {
		return 0, nil
	}
	n := e.dtype.Size()
	for _, d := range e.shape {
		if d > limit/n {
			return 0, &Error{Tensor: e.name, Reason: fmt.Sprintf("shape %v of %s needs more than the file's %d data bytes: truncated?", e.shape, e.dtype, limit)}
		}
		n *= d
	}
	return n, nil
}

// place cuts the data into tensors, which must cover it without overlap or hole.
func (f *File) place(entries []entry, data []byte) error {
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.name, b.name))
	})
	at := uint64(0)
	for _, e := range entries {
		fail := func(format string, args ...any) error {
			return &Error{Tensor: e.name, Reason: fmt.Sprintf(format, args...)}
		}
		switch {
		case e.begin > e.end:
			return fail("data_offsets [%d, %d] run backward", e.begin, e.end)
		case e.end > uint64(len(data)):
			return fail("data_offsets [%d, %d] lie outside the file's %d data bytes: truncated?", e.begin, e.end, len(data))
		case e.begin < at:
			return fail("data_offsets [%d, %d] overlap the tensor before, which ends at %d", e.begin, e.end, at)
		case e.begin > at:
			return fail("%d unclaimed bytes before it, at offset %d", e.begin-at, at)
		}
		want, err := e.bytes(len(data))
		if err != nil {
			return err
		}
		if uint64(want) != e.end-e.begin {
			return fail("%s%v takes %d bytes, data_offsets [%d, %d] give %d", e.dtype, e.shape, want, e.begin, e.end, e.end-e.begin)
		}
		f.Tensors = append(f.Tensors, Tensor{Name: e.name, DType: e.dtype, Shape: e.shape, Data: data[e.begin:e.end:e.end]})
		at = e.end
	}
	if at != uint64(len(data)) {
		return &Error{Reason: fmt.Sprintf("%d trailing bytes after the last tensor", uint64(len(data))-at)}
	}
	slices.SortFunc(f.Tensors, func(a, b Tensor) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}
