package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/google/renameio/v2"
)

// Write puts f at path, whole or not at all. The same File gives the same
// bytes, whatever the order of its tensors; any safetensors reader takes them.
func Write(path string, f *File) error {
	head, tensors, err := layout(f)
	if err != nil {
		err.File = path
		return err
	}
	pending, perr := renameio.NewPendingFile(path, renameio.WithPermissions(0o644), renameio.WithExistingPermissions())
	if perr != nil {
		return perr
	}
	defer pending.Cleanup()
	if err := emit(pending, head, tensors); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return pending.CloseAtomicallyReplace()
}

// Encode writes f to w as Write would to a file.
func Encode(w io.Writer, f *File) error {
	head, tensors, err := layout(f)
	if err != nil {
		return err
	}
	return emit(w, head, tensors)
}

func emit(w io.Writer, head []byte, tensors []*Tensor) error {
	if _, err := w.Write(head); err != nil {
		return err
	}
	for _, t := range tensors {
		if _, err := w.Write(t.Data); err != nil {
			return err
		}
	}
	return nil
}

// layout returns the length prefix with the header, and the tensors in file
// order: wide elements first, then by name.
func layout(f *File) ([]byte, []*Tensor, *Error) {
	tensors := make([]*Tensor, len(f.Tensors))
	for i := range f.Tensors {
		tensors[i] = &f.Tensors[i]
	}
	for _, t := range tensors {
		if err := t.check(); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(tensors, func(a, b *Tensor) int {
		return cmp.Or(cmp.Compare(slices.Index(dtypes, a.DType), slices.Index(dtypes, b.DType)), cmp.Compare(a.Name, b.Name))
	})
	head, err := header(f.Metadata, tensors)
	if err != nil {
		return nil, nil, err
	}
	if len(head) > MaxHeader {
		return nil, nil, &Error{Reason: fmt.Sprintf("header of %d bytes exceeds the limit of %d", len(head), MaxHeader)}
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...), tensors, nil
}

func (t *Tensor) check() *Error {
	switch {
	case t.Name == metadataKey:
		return &Error{Tensor: t.Name, Reason: "the name is reserved"}
	case !utf8.ValidString(t.Name):
		return &Error{Tensor: t.Name, Reason: "the name is not UTF-8"}
	case !t.DType.valid():
		return &Error{Tensor: t.Name, Reason: fmt.Sprintf("dtype %q is not supported; supported are %v", string(t.DType), dtypes)}
	case len(t.Shape) > maxRank:
		return &Error{Tensor: t.Name, Reason: fmt.Sprintf("more than %d dimensions", maxRank)}
	case slices.ContainsFunc(t.Shape, func(d int) bool { return d < 0 }):
		return &Error{Tensor: t.Name, Reason: fmt.Sprintf("negative dimension in %v", t.Shape)}
	}
	e := entry{name: t.Name, dtype: t.DType, shape: t.Shape}
	if want, err := e.bytes(len(t.Data)); err != nil || want != len(t.Data) {
		return &Error{Tensor: t.Name, Reason: fmt.Sprintf("%d data bytes do not make %s%v", len(t.Data), t.DType, t.Shape)}
	}
	return nil
}

func header(metadata map[string]string, tensors []*Tensor) ([]byte, *Error) {
	b := []byte{'{'}
	if len(metadata) > 0 {
		b = append(quote(b, metadataKey), ":{"...)
		for i, k := range slices.Sorted(maps.Keys(metadata)) {
			if !utf8.ValidString(k) || !utf8.ValidString(metadata[k]) {
				return nil, &Error{Reason: fmt.Sprintf("metadata %q is not UTF-8", k)}
			}
			if i > 0 {
				b = append(b, ',')
			}
			b = quote(append(quote(b, k), ':'), metadata[k])
		}
		b = append(b, '}')
	}
	seen := map[string]bool{}
	at := 0
	for _, t := range tensors {
		if seen[t.Name] {
			return nil, &Error{Tensor: t.Name, Reason: "two tensors of this name"}
		}
		seen[t.Name] = true
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = quote(b, t.Name)
		b = fmt.Appendf(b, `:{"dtype":"%s","shape":[`, t.DType)
		for i, d := range t.Shape {
			if i > 0 {
				b = append(b, ',')
			}
			b = fmt.Append(b, d)
		}
		b = fmt.Appendf(b, `],"data_offsets":[%d,%d]}`, at, at+len(t.Data))
		at += len(t.Data)
	}
	b = append(b, '}')
	for len(b)%8 != 0 { // the length prefix has 8 bytes, so the data is aligned too
		b = append(b, ' ')
	}
	return b, nil
}

// quote appends s as a JSON string without HTML escapes.
func quote(b []byte, s string) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic("BUG: safetensors: a string does not encode: " + err.Error())
	}
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte{'\n'})...)
}
