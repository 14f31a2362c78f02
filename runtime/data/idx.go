package data

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// IDX is the file format of MNIST (http://yann.lecun.com/exdb/mnist): a magic
// number, the dimensions, big-endian, and the values. Only unsigned bytes are
// read, the type all its data sets use.
const (
	idxImages = 0x00000803 // unsigned byte, 3 dimensions
	idxLabels = 0x00000801 // unsigned byte, 1 dimension

	// idxLimit bounds the values of one file, against hostile headers. MNIST
	// has 47 MB.
	idxLimit = 1 << 30
)

// array is the content of an IDX file.
type array struct {
	dims   []int
	values []uint8
}

// readIDX reads a file with the magic number given, plain or gzip by its
// content. Errors name the file and the reason.
func readIDX(path string, magic uint32) (*array, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := parseIDX(f, magic)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// parseIDX reads all of r, which must end where the header says.
func parseIDX(r io.Reader, magic uint32) (*array, error) {
	var head [2]byte
	n, err := io.ReadFull(r, head[:])
	r = io.MultiReader(bytes.NewReader(head[:n]), r)
	if err == nil && head == [2]byte{0x1f, 0x8b} {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("not a gzip file: %w", err)
		}
		a, err := parsePlainIDX(z, magic)
		if err != nil {
			return nil, fmt.Errorf("in the gzip stream: %w", err)
		}
		return a, nil
	}
	return parsePlainIDX(r, magic)
}

func parsePlainIDX(r io.Reader, magic uint32) (*array, error) {
	word := func(what string) (uint32, error) {
		var b [4]byte
		if n, err := io.ReadFull(r, b[:]); err != nil {
			return 0, truncated(err, fmt.Sprintf("%d of 4 bytes of the %s", n, what))
		}
		return binary.BigEndian.Uint32(b[:]), nil
	}
	got, err := word("magic number")
	if err != nil {
		return nil, err
	}
	if got != magic {
		return nil, fmt.Errorf("magic number is 0x%08x, want 0x%08x (%s)", got, magic, magicText(magic))
	}
	a := &array{dims: make([]int, magic&0xff)}
	size := uint64(1)
	for i := range a.dims {
		d, err := word(fmt.Sprintf("dimension %d", i))
		if err != nil {
			return nil, err
		}
		if d == 0 {
			return nil, fmt.Errorf("dimension %d is 0", i)
		}
		if size *= uint64(d); size > idxLimit {
			return nil, fmt.Errorf("the header announces more than %d values", idxLimit)
		}
		a.dims[i] = int(d)
	}
	// Memory grows with what arrives, not with what the header promises.
	var values bytes.Buffer
	if n, err := io.CopyN(&values, r, int64(size)); err != nil {
		return nil, truncated(err, fmt.Sprintf("%d of %d values", n, size))
	}
	a.values = values.Bytes()
	// Reading on to the end also makes gzip check its sum.
	if n, err := io.Copy(io.Discard, io.LimitReader(r, 1)); err != nil {
		return nil, err
	} else if n > 0 {
		return nil, fmt.Errorf("there is more after the %d values the header announces", size)
	}
	return a, nil
}

func truncated(err error, had string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("truncated: the file has %s", had)
	}
	return err
}

func magicText(magic uint32) string {
	if magic == idxImages {
		return "images: unsigned bytes, 3 dimensions"
	}
	return "labels: unsigned bytes, 1 dimension"
}

// table is a data set held in memory.
type table struct {
	channels, height, width int
	images                  []uint8
	labels                  []uint8
	classes                 []string
}

// newTable pairs images with labels. The names are for messages.
func newTable(images, labels *array, imageName, labelName string, classes []string) (*table, error) {
	if images.dims[0] != labels.dims[0] {
		return nil, fmt.Errorf("%s has %d images but %s has %d labels", imageName, images.dims[0], labelName, labels.dims[0])
	}
	for i, l := range labels.values {
		if int(l) >= len(classes) {
			return nil, fmt.Errorf("%s: label %d of sample %d is not in 0 … %d", labelName, l, i, len(classes)-1)
		}
	}
	return &table{channels: 1, height: images.dims[1], width: images.dims[2], images: images.values, labels: labels.values, classes: classes}, nil
}

func (t *table) Len() int          { return len(t.labels) }
func (t *table) Shape() [3]int     { return [3]int{t.channels, t.height, t.width} }
func (t *table) Classes() []string { return t.classes }

func (t *table) Sample(i int, pixels []uint8) (int, error) {
	n := t.channels * t.height * t.width
	copy(pixels[:n], t.images[i*n:])
	return int(t.labels[i]), nil
}
